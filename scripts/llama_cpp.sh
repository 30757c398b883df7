#!/usr/bin/env bash
# Builds programs of llama.cpp from the source package of llama-cpp-python: llama_cpp.sh FOLDER PROGRAM...
#
# In FOLDER it makes a Python environment (tools), unpacks the source (source) and builds (build; 20 minutes on one core, JOBS says how many
# at a time). What is there is used again. Needs uv and a C++ compiler.
set -euo pipefail
folder=$1
shift
version=0.3.36
tools=$folder/tools/bin
if ! [ -x "$tools/cmake" ]; then
    uv venv "$folder/tools"
    uv pip install --python "$tools/python" pip cmake ninja torch transformers gguf sentencepiece protobuf numpy
fi
if ! [ -d "$folder/source" ]; then
    "$tools/python" -m pip download --no-deps --no-binary llama-cpp-python --dest "$folder" "llama-cpp-python==$version"
    tar -xzf "$folder/llama_cpp_python-$version.tar.gz" -C "$folder"
    ln -s "llama_cpp_python-$version/vendor/llama.cpp" "$folder/source"
    rm -f "$folder/source/.git" # a submodule of no repository, with which the build is never up to date
fi
missing=()
for program in "$@"; do
    [ -x "$folder/build/bin/$program" ] || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
    PATH=$tools:$PATH cmake -G Ninja -S "$folder/source/" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=ON \
        -DLLAMA_OPENSSL=OFF -DBUILD_SHARED_LIBS=OFF
    PATH=$tools:$PATH nice ninja -C "$folder/build" -j "${JOBS:-1}" "${missing[@]}"
fi
