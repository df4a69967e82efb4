#!/bin/sh
# Pushes everything to the phone that adb finds and runs the self-test there. After build.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
there=/data/local/tmp/sdconv
adb shell mkdir -p "$there"
adb push --sync "$here/run" "$here/lib" "$here/kernels" "$here/programs" "$there/"
# CLML's own first: a kernel that fails explains a program that does. Recordable queues are left out
# at first, for an operator that fails in a recording does not say so.
adb shell "cd $there && chmod +x run && \
    export LD_LIBRARY_PATH=$there/lib:/vendor/lib64 CLML_DISABLE_RECORDABLE_QUEUE=1 && \
    ./run \$(ls -d kernels/*/ 2>/dev/null); ./run \$(ls -d programs/*/)"
