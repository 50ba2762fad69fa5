# SPDX-License-Identifier: MIT
# Completion of minivmm for bash. Verbs and options are asked of the program itself, so they are never out of date.

_minivmm() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]} program=${COMP_WORDS[0]}
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" help 2>/dev/null |
            sed -n '/^Verbs:/,/^$/s/^  \([a-z-]*\) .*/\1/p') --help --version" -- "$word")
        return
    fi
    case $word in
    -*)
        mapfile -t COMPREPLY < <(compgen -W "$("$program" "$verb" --help 2>/dev/null |
            grep -oE -- '--[a-z][a-z-]+' | sort -u)" -- "$word")
        return
        ;;
    esac
    case $verb/$before in
    */--cpu) mapfile -t COMPREPLY < <(compgen -W "host x86-64-v2 x86-64-v3 x86-64-v4" -- "$word") ;;
    */--net) mapfile -t COMPREPLY < <(compgen -W "user passt tap bridge: none" -- "$word") ;;
    */--console) mapfile -t COMPREPLY < <(compgen -W "serial virtio" -- "$word") ;;
    key/* | pairs/*) ;;
    */--remote-command | */--as | */--name) ;;
    pair/* | unpair/*) mapfile -t COMPREPLY < <(compgen -W "$("$program" pairs 2>/dev/null | awk 'NR > 1 { print $1 }')" -A hostname -- "$word") ;;
    */--level) mapfile -t COMPREPLY < <(compgen -W "memory durable" -- "$word") ;;
    */--link) mapfile -t COMPREPLY < <(compgen -W "up down" -- "$word") ;;
    */--witness) mapfile -t COMPREPLY < <(compgen -W "file: etcd://" -- "$word") ;;
    */--key) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    run/* | new/* | list/* | */--kernel | */--initrd | */--disk) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$("$program" list -q 2>/dev/null)" -- "$word"; compgen -d -- "$word") ;;
    esac
}

complete -o filenames -F _minivmm minivmm
