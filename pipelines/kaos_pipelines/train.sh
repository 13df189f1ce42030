# Runs one trial: the script that the `train` pipeline feeds to `sh` (POSIX; nothing but a shell is needed).
# In:  $build, $data, $hyper = this datum's files; PACH_PFS = where /pfs is, unless it is /pfs.
# Out: exec of ./train <output folder>, with the variables of docs/training-contract.md.
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
KAOS_DATA_DIR=$data
KAOS_PARAMS=$hyper
KAOS_JOB_ID=${PACH_JOB_ID:-}
KAOS_MODEL_ID=$(printf '%.6s-%.6s-%s' "$source_id" "$data_id" "${params%.json}")
KAOS_OUTPUT_DIR=${PACH_PFS:-/pfs}/out/$KAOS_MODEL_ID
KAOS_CPU=${KAOS_CPU:-1}
KAOS_MEMORY=${KAOS_MEMORY:-}
KAOS_GPU=${KAOS_GPU:-0}
export KAOS_DATA_DIR KAOS_PARAMS KAOS_OUTPUT_DIR KAOS_JOB_ID KAOS_MODEL_ID KAOS_CPU KAOS_MEMORY KAOS_GPU
mkdir -p "$KAOS_OUTPUT_DIR" || fail 1 "cannot make the output folder $KAOS_OUTPUT_DIR"
[ -f ./train ] || fail 127 "there is no train in $PWD, the image's working directory; COPY it there, or change WORKDIR"
[ -x ./train ] || fail 126 "train in $PWD is not executable; run chmod +x on it (or add RUN chmod +x train to the Dockerfile)"
# exec of a script whose interpreter is missing says "train: not found", which nobody understands: look first.
first=
IFS= read -r first <./train 2>/dev/null || :
case $first in
'#!'*)
  carriage_return=$(printf '\r')
  case $first in
  *"$carriage_return") fail 127 "train has Windows line endings, so its first line names no program; save it with LF line endings" ;;
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
      command -v "${interpreter##*/}" >/dev/null 2>&1 && exec "${interpreter##*/}" $arguments ./train "$KAOS_OUTPUT_DIR"
      ;;
    esac
    fail 127 "train's first line asks for $interpreter, which the image does not have"
  fi
  ;;
esac
exec ./train "$KAOS_OUTPUT_DIR"
