#!/bin/sh
# A linker for targets whose static programs rustc links at a fixed address, though all is there that it takes for another way: objects that
# the program begins and ends with, and options. (For x86-64 it does so itself.)
for argument do
    shift
    case $argument in
    */crt1.o) argument=${argument%crt1.o}rcrt1.o ;;
    */crtbegin.o | */crtend.o) argument=${argument%.o}S.o ;;
    esac
    set -- "$@" "$argument"
done
exec rust-lld -flavor gnu "$@" -pie --no-dynamic-linker -z text
