# The keeper of a worker's container, under its init: starts commands, ends what they left, tells what the kernel
# counted. Any POSIX sh; to start commands it takes `setsid` and an `env` that can undo what a shell does to signals.
# End of input means that the engine is gone; then the container ends, and with it all that runs in it.
#
# It speaks on stdout; stderr is that of the commands. Requests, one per line:
#   input N                 the next N lines are the standard input of commands from now on
#   run N                   the next N lines are a shell's; answers `exit CODE` when what they start has ended
#   look                    answers `ok KILLED PEAK LEFT`: processes killed for want of memory, bytes, running or over
#   end MARK [UID:GID]      nothing is left running, outputs have that owner, stderr says MARK; answers as `look`

count() {
    killed=0 peak=0
    for file in /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events; do
        [ -r "$file" ] && while read -r name value; do
            [ "$name" = oom_kill ] && killed=$value
        done < "$file"
    done
    for file in /sys/fs/cgroup/memory/memory.max_usage_in_bytes /sys/fs/cgroup/memory.peak; do
        [ -r "$file" ] && read -r peak < "$file"
    done
}

# All but the init, which nobody can, and this shell. A process that is being born gets the signal, too.
end_all() {
    rounds=0
    set -- /proc/[0-9]*
    while [ $# -gt 2 ] && [ $rounds -lt 100000 ]; do
        kill -KILL -1 2>/dev/null
        [ -z "$command" ] || wait "$command" 2>/dev/null
        command=
        rounds=$((rounds + 1))
        set -- /proc/[0-9]*
    done
    command=
    [ $# -le 2 ]
}

# Sets taken to the next $1 lines.
take() {
    taken= left=$1
    while [ "$left" -gt 0 ]; do
        IFS= read -r line || exit 1
        taken="$taken$line
"
        left=$((left - 1))
    done
}

run() {
    if [ -z "$input" ]; then
        (eval "$1") >&3 2>&3 3>&- </dev/null
    else
        (eval "$1") >&3 2>&3 3>&- <<end
$input
end
    fi
    echo "exit $?"
}

command= input=
exec 3>&2
starts=no
setsid env --default-signal=INT,QUIT true >/dev/null 2>&1 && starts=yes
count
echo "ready $killed $peak $starts"
while read -r request first second; do
    case $request in
    input)
        take "$first"
        input=${taken%?}
        continue
        ;;
    run)
        take "$first"
        # Shells have words of their own for how a command ended; those are not for its log.
        run "$taken" 2>/dev/null &
        command=$!
        continue
        ;;
    esac
    state=ok
    if [ "$request" = end ]; then
        end_all || state=stuck
        [ -z "$second" ] || chown -R -h "$second" /pfs/out || state=unowned
        echo "$first" >&2
    fi
    left=over
    # One that was killed may stay as a zombie until it is waited for.
    [ -n "$command" ] && { read -r _ _ status _ <"/proc/$command/stat"; } 2>/dev/null && [ "$status" != Z ] &&
        left=running
    count
    echo "$state $killed $peak $left"
done
