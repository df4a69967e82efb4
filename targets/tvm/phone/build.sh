#!/bin/sh
# Builds what runs on the phone, from TVM's sources, with Android's NDK. Wants three folders:
#
#   TVM_SOURCE   apache/tvm at v0.27.0, with its submodules
#   ANDROID_NDK  version 26 or later
#   CLML_SDK     Qualcomm's OpenCL ML SDK (its folder with CL/cl_qcom_ml_ops.h and libOpenCL.so);
#                empty for programs of target adreno-opencl, which need only libOpenCL.so
#
# and, where programs have a part for MNN (the VAE's), a fourth:
#
#   MNN          MNN 3.6.1 for Android: a folder with arm64-v8a/libMNN.so, as its release has it, and
#                include/MNN/Interpreter.hpp, as its sources have it
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${TVM_SOURCE:?} ${ANDROID_NDK:?}"
if [ -n "$(find "$here/programs" "$here/kernels" -name '*.mnn' 2>/dev/null)" ]; then
    for file in arm64-v8a/libMNN.so include/MNN/Interpreter.hpp; do
        [ -e "${MNN:?is needed, for programs here have a part for MNN}/$file" ] ||
            { echo "MNN=$MNN: there is no $file" >&2; exit 2; }
    done
else
    MNN=
fi
toolchain=$ANDROID_NDK/build/cmake/android.toolchain.cmake
cxx=$ANDROID_NDK/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android28-clang++

cmake -S "$TVM_SOURCE" -B "$here/tvm" \
    -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-28 \
    -DCMAKE_BUILD_TYPE=Release -DUSE_LLVM=OFF -DUSE_OPENCL=ON \
    ${CLML_SDK:+-DUSE_CLML=ON -DUSE_CLML_GRAPH_EXECUTOR="$CLML_SDK"}
cmake --build "$here/tvm" --target tvm_runtime tvm_ffi_shared -j

libraries=$(find "$here/tvm" -name 'libtvm_*.so')
directories=$(for file in $libraries; do dirname "$file"; done | sort -u | sed 's/^/-L/')
ffi=$TVM_SOURCE/3rdparty/tvm-ffi
"$cxx" -std=c++17 -O2 -static-libstdc++ -I"$ffi/include" -I"$ffi/3rdparty/dlpack/include" \
    ${MNN:+-DSDCONV_MNN -I"$MNN/include" -L"$MNN/arm64-v8a"} \
    -o "$here/run" "$here/run.cc" $directories -ltvm_runtime -ltvm_ffi ${MNN:+-lMNN}
for objects in "$here"/programs/*/library.tar; do
    [ -e "$objects" ] || continue
    folder=$(dirname "$objects")
    tar -xf "$objects" -C "$folder"
    "$cxx" -shared -fPIC -o "$folder/library.so" "$folder"/*.o $directories -ltvm_runtime -ltvm_ffi
done
mkdir -p "$here/lib"
cp $libraries ${MNN:+"$MNN"/arm64-v8a/*.so} "$here/lib/"
