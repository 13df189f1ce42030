# Runs one trial: the script that the `train` pipeline feeds to `sh` (POSIX; a shell, mkdir, mv, ln, rm and od).
# In:  $build, $data, $hyper = this datum's files; PACH_PFS = where /pfs is, unless it is /pfs;
#      KAOS_ANY_NAME = 1 where the worker itself gives and stores files of any name; KAOS_TIMEOUT = seconds that the
#      trial may take, if there is a limit; KAOS_SHELL = 1 for a shell in place of train.
# Out: ./train <output folder>, with the variables of docs/training-contract.md. Where PFS is the worker's (a real
#      Pachyderm), a bundle that has a map of names (kaos_formats/stored.py) is seen through a view of links, and
#      what the trial wrote is renamed to what PFS can hold, with such a map.
fail() {
  echo "kaos: $2" >&2
  exit "$1"
}
[ -n "${build:-}" ] && [ -n "${data:-}" ] && [ -n "${hyper:-}" ] || fail 1 "this script needs the inputs build, data and hyper"
build=${build%/}
data=${data%/}
source_id=${build##*/}
data_id=${data##*/}
params=${hyper##*/}
any_name=${KAOS_ANY_NAME:-}
unset KAOS_ANY_NAME
map=.kaos-names

# view FOLDER VIEW: folders as below FOLDER, with links to its files.
view() {
  mkdir "$2" || exit 1
  for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -d "$entry" ]; then
      view "$entry" "$2/${entry##*/}" || exit 1
    elif [ -e "$entry" ]; then
      set -- "$@" "$entry"
      [ $# -lt 500 ] || link "$@" || exit 1
      [ $# -lt 500 ] || set -- "$1" "$2"
    fi
  done
  [ $# -eq 2 ] || link "$@"
}
link() {
  into=$2
  shift 2
  ln -s "$@" "$into/"
}
# true_names FOLDER MAP: give what is below FOLDER its true names.
true_names() {
  tab=$(printf '\t')
  {
    read -r stored
    while IFS=$tab read -r stored name; do
      name=$(printf '%b.' "$name")
      name=$1/${name%.}
      mv "${name%/*}/$stored" "$name" || exit 1
    done
  } <"$2"
}
KAOS_DATA_DIR=$data
first=
[ -z "$any_name" ] && IFS= read -r first 2>/dev/null <"$data/$map"
if [ "$first" = "kaos-names 1 $data_id" ]; then
  KAOS_DATA_DIR=${TMPDIR:-/tmp}/kaos-data/$data_id
  # That of the trial before, which its output may have led to until now.
  rm -rf "${KAOS_DATA_DIR%/*}" && mkdir "${KAOS_DATA_DIR%/*}" && view "$data" "$KAOS_DATA_DIR" &&
    rm "$KAOS_DATA_DIR/$map" && true_names "$KAOS_DATA_DIR" "$data/$map" ||
    fail 1 "cannot lay out the names of data bundle $data_id in $KAOS_DATA_DIR"
fi
KAOS_PARAMS=$hyper
KAOS_JOB_ID=${PACH_JOB_ID:-}
# Of each id its first six characters, without a process for it.
source_short=${source_id%"${source_id#??????}"}
data_short=${data_id%"${data_id#??????}"}
KAOS_MODEL_ID=${source_short:-$source_id}-${data_short:-$data_id}-${params%.json}
KAOS_OUTPUT_DIR=${PACH_PFS:-/pfs}/out/$KAOS_MODEL_ID
KAOS_CPU=${KAOS_CPU:-1}
KAOS_MEMORY=${KAOS_MEMORY:-}
KAOS_GPU=${KAOS_GPU:-0}
export KAOS_DATA_DIR KAOS_PARAMS KAOS_OUTPUT_DIR KAOS_JOB_ID KAOS_MODEL_ID KAOS_CPU KAOS_MEMORY KAOS_GPU
mkdir -p "$KAOS_OUTPUT_DIR" || fail 1 "cannot make the output folder $KAOS_OUTPUT_DIR"
if [ -n "${KAOS_SHELL:-}" ]; then # somebody looks at a trial (kaos train shell)
  unset KAOS_SHELL
  command -v bash >/dev/null 2>&1 && exec bash
  exec sh -i
fi
set -- ./train "$KAOS_OUTPUT_DIR"
[ -f ./train ] || fail 127 "there is no train in $PWD, the image's working directory; COPY it there, or change WORKDIR"
[ -x ./train ] || fail 126 "train in $PWD is not executable; run chmod +x on it (or add RUN chmod +x train to the Dockerfile)"
# exec of a script whose interpreter is missing says "train: not found", which nobody understands: look first.
first=
IFS= read -r first <./train 2>/dev/null || :
case $first in
'#!'*)
  case $first in
  *[!" "-~]*)
    carriage_return=$(printf '\r')
    case $first in
    *"$carriage_return") fail 127 "train has Windows line endings, so its first line names no program; save it with LF line endings" ;;
    esac
    ;;
  esac
  interpreter=${first#'#!'}
  interpreter=${interpreter#"${interpreter%%[! ]*}"}
  arguments=${interpreter#"${interpreter%% *}"}
  interpreter=${interpreter%% *}
  case $interpreter in
  */env)
    for word in $arguments; do
      case $word in
      -* | *=*) ;;
      *)
        command -v "$word" >/dev/null 2>&1 || fail 127 "train's first line asks for $word, which the image does not have"
        break
        ;;
      esac
    done
    ;;
  esac
  if [ ! -x "$interpreter" ]; then
    # /usr/local/bin/python is where Docker's python images keep it; in a virtual environment it is elsewhere.
    case ${interpreter##*/} in
    python*)
      command -v "${interpreter##*/}" >/dev/null 2>&1 && set -- "${interpreter##*/}" $arguments "$@"
      ;;
    esac
    [ $# -gt 2 ] || fail 127 "train's first line asks for $interpreter, which the image does not have"
  fi
  ;;
esac
KAOS_TIMEOUT=${KAOS_TIMEOUT:-}
[ -z "$any_name" ] || [ -n "$KAOS_TIMEOUT" ] || exec "$@"

# PFS refuses a whole output for one name that it cannot hold, so something has to follow the trial. And what runs out
# of Pachyderm's own datum_timeout has none left for err_cmd, so that one slow trial would fail the job: its time is
# taken here.
passed= late=
for signal in TERM INT HUP QUIT USR1 USR2; do
  trap "passed=1; kill -s $signal \$trial 2>/dev/null" "$signal"
done
trap 'late=1 passed=1; kill -s KILL $trial 2>/dev/null' ALRM
"$@" &
trial=$!
timer=
if [ -n "$KAOS_TIMEOUT" ]; then
  (sleep "$KAOS_TIMEOUT" && kill -s ALRM $$) </dev/null >/dev/null 2>&1 &
  timer=$!
fi
wait "$trial"
code=$?
while [ -n "$passed" ]; do # a signal that was passed on ended the wait, or came just after it
  passed=
  wait "$trial"
  next=$?
  [ "$next" -eq 127 ] || code=$next # 127: it was waited for already
done
trap '' ALRM
[ -z "$timer" ] || kill "$timer" 2>/dev/null
[ -z "$late" ] || fail 124 "timed out after $KAOS_TIMEOUT s"
[ -z "$any_name" ] || exit "$code"

LC_ALL=C
export LC_ALL
odd='*[! -~]*'
globs='*[]*?{}!()@+^[]*'

# spell NAME: sets stored, the name with %XX for what PFS cannot hold, and name, as the map writes it.
spell() {
  stored= name=
  octal=$(printf '%s' "$1" | od -An -v -to1)
  set -- $(printf '%s' "$1" | od -An -v -tx1)
  for byte in $octal; do
    case $byte in
    045) stored=$stored%%25 name=$name%% ;;
    041 | 050 | 051 | 052 | 053 | 077 | 100 | 133 | 135 | 136 | 173 | 175) stored=$stored%%$1 name=$name\\$byte ;;
    134) stored=$stored\\134 name=$name\\134'0134' ;;
    04? | 05? | 06? | 07? | 1[0-6]? | 17[0-6]) stored=$stored\\$byte name=$name\\$byte ;;
    *) stored=$stored%%$1 name=$name\\134"0$byte" ;;
    esac
    shift
  done
  stored=$(printf "$stored")
  name=$(printf "$name")
  [ -n "$stored" ] || fail 1 "the output has a file whose name Pachyderm cannot hold, and the image has no od to spell it"
}
# free FOLDER: makes stored a name that is short enough and free there.
free() {
  [ ${#stored} -gt 255 ] || [ -e "$1/$stored" ] || [ -L "$1/$stored" ] || return 0
  case $stored in
  ?*.?*) suffix=.${stored##*.} ;;
  *) suffix= ;;
  esac
  [ ${#suffix} -le 16 ] || suffix=
  start=$(printf '%.200s' "$stored")
  start=${start%\%}
  start=${start%\%?}
  count=1
  while [ -e "$1/$start%~$count$suffix" ] || [ -L "$1/$start%~$count$suffix" ]; do
    count=$((count + 1))
  done
  stored=$start%~$count$suffix
}
# rename ENTRY: to a name that PFS can hold; $2 is the true path of its folder in the map, with a slash at its end.
# Sets entry, where it is now, and name, its own in the map.
rename() {
  spell "${1##*/}"
  free "${1%/*}"
  [ -e "$top/$map" ] || printf 'kaos-names 1 %s\n' "${top##*/}" >"$top/$map"
  mv "$1" "${1%/*}/$stored" && printf '%s\t%s\n' "$stored" "$2$name" >>"$top/$map" ||
    fail 1 "cannot rename $1 to $stored, which Pachyderm can hold"
  entry=${1%/*}/$stored
}
# hold FOLDER TRUE: gives everything below FOLDER, whose true path in the map is TRUE, names that PFS can hold.
hold() {
  for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    name=${entry##*/}
    case $name in
    $odd | $globs) rename "$entry" "$2" ;;
    *\\*) spell "$name" ;;
    esac
    [ "$entry" != "$moved" ] || name=$map
    if [ -d "$entry" ] && [ ! -L "$entry" ]; then
      hold "$entry" "$2$name/"
    fi
  done
}
out=${KAOS_OUTPUT_DIR%/*}
for top in "$out"/* "$out"/.[!.]* "$out"/..?*; do
  [ -e "$top" ] || [ -L "$top" ] || continue
  case ${top##*/} in
  $odd | $globs) fail 1 "$top is beside the output folder and has a name that Pachyderm cannot hold" ;;
  esac
  [ -d "$top" ] && [ ! -L "$top" ] || continue
  moved=
  if [ -e "$top/$map" ] || [ -L "$top/$map" ]; then
    stored=$map
    free "$top"
    moved=$top/$stored
    mv "$top/$map" "$moved" && printf 'kaos-names 1 %s\n%s\t%s\n' "${top##*/}" "$stored" "$map" >"$top/$map" ||
      fail 1 "cannot rename $top/$map"
  fi
  hold "$top" ""
done
exit "$code"
