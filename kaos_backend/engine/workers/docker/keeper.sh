# The keeper of a worker's container, under its init: ends what a datum left, tells what the kernel counted.
# Any POSIX sh, no other program. One request per line: `look`, or `end [uid:gid]`, the owner that outputs get.
# End of input means that the engine is gone; then the container ends, and with it all that runs in it.

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
        rounds=$((rounds + 1))
        set -- /proc/[0-9]*
    done
    [ $# -le 2 ]
}

count
echo "ready $killed $peak"
while read -r request owner; do
    state=ok
    if [ "$request" = end ]; then
        end_all || state=stuck
        [ -z "$owner" ] || chown -R -h "$owner" /pfs/out || state=unowned
    fi
    count
    echo "$state $killed $peak"
done
