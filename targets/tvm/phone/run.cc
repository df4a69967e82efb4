// Runs a program that 'sdconv compile' made, on a phone: run FOLDER [FOLDER...]
//
// Every folder holds a `run.json`: a library, or one CLML graph or MNN model alone; its parameters as
// places of a file; CLML's graphs; MNN's models; inputs and the outputs that are expected, each a file
// of raw numbers. Weights are read one tensor at a time. Prints a line a folder; ends with 1 unless
// all outputs agree.

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#ifdef SDCONV_MNN
#include <MNN/Interpreter.hpp>
#endif
#ifdef SDCONV_PLUGIN
#include <dlfcn.h>
#endif

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;
namespace json = tvm::ffi::json;
using ffi::Tensor;

namespace {

constexpr DLDevice kHost{kDLCPU, 0};
constexpr DLDevice kDevice{kDLOpenCL, 0};
constexpr int kPooled = 2;  // TVM's allocator that keeps memory

// One of TVM's own functions, called.
template <typename... Args>
ffi::Any Tvm(const char* name, Args... args) {
  auto function = ffi::Function::GetGlobal(name);
  if (!function.has_value()) TVM_FFI_THROW(RuntimeError) << "this TVM has no " << name;
  return (*function)(args...);
}

std::string Read(const std::string& path, size_t offset, size_t nbytes) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(nbytes, '\0');
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(&bytes[0], static_cast<std::streamsize>(nbytes));
  if (!file) TVM_FFI_THROW(RuntimeError) << path << ": not there, or too short";
  return bytes;
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) TVM_FFI_THROW(RuntimeError) << path << ": not there";
  return std::string(std::istreambuf_iterator<char>(file), {});
}

template <typename T>
T At(const json::Object& object, const char* key) {
  return object.at(ffi::String(key)).cast<T>();
}

std::string Text(const json::Object& object, const char* key) {
  return std::string(At<ffi::String>(object, key));
}

Tensor Empty(const json::Object& described, DLDevice device) {
  std::vector<int64_t> shape;
  for (const auto& extent : At<json::Array>(described, "shape")) {
    shape.push_back(extent.cast<int64_t>());
  }
  DLDataType dtype = ffi::StringToDLDataType(Text(described, "dtype"));
  auto nowhere = ffi::Optional<ffi::String>(std::nullopt);
  return Tvm("runtime.TVMTensorAllocWithScope", ffi::Shape(shape), dtype, device, nowhere)
      .cast<Tensor>();
}

Tensor Load(const json::Object& described, const std::string& file, DLDevice device) {
  Tensor tensor = Empty(described, device);
  size_t nbytes = static_cast<size_t>(At<int64_t>(described, "nbytes"));
  std::string bytes = Read(file, static_cast<size_t>(At<int64_t>(described, "offset")), nbytes);
  Tvm("runtime.TVMTensorCopyFromBytes", tensor, static_cast<void*>(&bytes[0]), nbytes);
  return tensor;
}

// A CLML graph becomes a function of the program under its symbol.
ffi::Function Register(const json::Object& described, const std::string& file) {
  ffi::String symbol = At<ffi::String>(described, "symbol");
  ffi::Array<ffi::String> names;
  ffi::Array<Tensor> constants;
  for (const auto& item : At<json::Array>(described, "constants")) {
    json::Object constant = item.cast<json::Object>();
    names.push_back(At<ffi::String>(constant, "name"));
    constants.push_back(Load(constant, file, kHost));
  }
  auto module = Tvm("runtime.clml_runtime_create", symbol, At<ffi::String>(described, "graph"), names)
                    .cast<ffi::Module>();
  auto init = module->GetFunction(ffi::String("__init_" + std::string(symbol)));
  (*init)(constants);
  auto function = module->GetFunction(symbol);
  ffi::Function::SetGlobal(std::string(symbol), *function, /*override=*/true);
  return *function;
}

#ifdef SDCONV_MNN
// What MNN runs of a program, on the CPU in float32: from one tensor of the device to another.
class HostOperator {
 public:
  HostOperator(const json::Object& described, const std::string& folder) {
    std::string path = folder + "/" + Text(described, "model");
    size_t nbytes = static_cast<size_t>(At<int64_t>(described, "weights_nbytes"));
    Read(path + ".weight", nbytes - 1, 1);  // without its weights MNN computes garbage
    net_.reset(MNN::Interpreter::createFromFile(path.c_str()));
    if (net_ == nullptr) TVM_FFI_THROW(RuntimeError) << path << ": not there, or no model of MNN's";
    MNN::BackendConfig exact;
    exact.precision = MNN::BackendConfig::Precision_High;
    MNN::ScheduleConfig how;
    how.type = MNN_FORWARD_CPU;
    how.numThread = kThreads;
    how.backendConfig = &exact;
    session_ = net_->createSession(how);
    if (session_ == nullptr) TVM_FFI_THROW(RuntimeError) << path << ": MNN makes no session of it";
    takes_ = net_->getSessionInput(session_, Text(described, "takes").c_str());
    gives_ = net_->getSessionOutput(session_, Text(described, "gives").c_str());
    if (takes_ == nullptr || gives_ == nullptr) TVM_FFI_THROW(RuntimeError) << path << ": other ports";
  }

  void Run(const Tensor& from, const Tensor& to) {
    MNN::Tensor given(takes_, MNN::Tensor::CAFFE), found(gives_, MNN::Tensor::CAFFE);  // in its order
    size_t taken = static_cast<size_t>(given.size()), made = static_cast<size_t>(found.size());
    Tvm("runtime.TVMTensorCopyToBytes", from, static_cast<void*>(given.host<float>()), taken);
    takes_->copyFromHostTensor(&given);
    auto code = net_->runSession(session_);
    if (code != MNN::NO_ERROR) TVM_FFI_THROW(RuntimeError) << "MNN failed with its code " << code;
    gives_->copyToHostTensor(&found);
    Tvm("runtime.TVMTensorCopyFromBytes", to, static_cast<void*>(found.host<float>()), made);
  }

 private:
  static constexpr int kThreads = 4;  // a phone's fast cores
  std::unique_ptr<MNN::Interpreter> net_;
  MNN::Session* session_;
  MNN::Tensor *takes_, *gives_;
};

// MNN's model becomes a function of the program under its symbol.
ffi::Function RegisterHost(const json::Object& described, const std::string& folder) {
  auto loaded = std::make_shared<HostOperator>(described, folder);
  ffi::Function function([loaded](ffi::PackedArgs args, ffi::Any*) {
    loaded->Run(args[0].cast<Tensor>(), args[1].cast<Tensor>());
  });
  ffi::Function::SetGlobal(Text(described, "symbol"), function, /*override=*/true);
  return function;
}
#else
ffi::Function RegisterHost(const json::Object&, const std::string&) {
  TVM_FFI_THROW(RuntimeError) << "it has a part for MNN, and this was built without: see build.sh";
}
#endif

// Peak signal to noise ratio in decibels, the peak being the largest expected value.
double Psnr(const std::vector<double>& found, const std::vector<double>& wanted) {
  double error = 0, peak = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!std::isfinite(found[i])) return -INFINITY;
    error += (found[i] - wanted[i]) * (found[i] - wanted[i]);
    peak = std::max(peak, std::fabs(wanted[i]));
  }
  if (error == 0) return INFINITY;
  return 10 * std::log10(peak * peak * static_cast<double>(wanted.size()) / error);
}

double Half(uint16_t bits) {
  int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  double size = exponent == 0    ? std::ldexp(fraction, -24)
                : exponent == 31 ? (fraction ? NAN : INFINITY)
                                 : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -size : size;
}

std::vector<double> Numbers(const std::string& bytes, const std::string& dtype) {
  std::vector<double> numbers;
  size_t size = dtype == "float16" ? 2 : 4;
  for (size_t at = 0; at + size <= bytes.size(); at += size) {
    uint16_t half;
    float single;
    std::memcpy(&half, &bytes[at], sizeof(half));
    if (size == 4) std::memcpy(&single, &bytes[at], sizeof(single));
    numbers.push_back(size == 2 ? Half(half) : single);
  }
  return numbers;
}

bool Compare(const Tensor& output, const json::Object& described, const std::string& folder) {
  size_t nbytes = static_cast<size_t>(At<int64_t>(described, "nbytes"));
  std::string bytes(nbytes, '\0');
  Tvm("runtime.TVMTensorCopyToBytes", output, static_cast<void*>(&bytes[0]), nbytes);
  std::string name = Text(described, "name"), dtype = Text(described, "dtype");
  std::ofstream(folder + "/" + name + ".found", std::ios::binary) << bytes;
  std::string wanted = Read(folder + "/" + Text(described, "file"), 0, nbytes);
  double floor = At<double>(described, "psnr_db");
  double psnr = Psnr(Numbers(bytes, dtype), Numbers(wanted, dtype));
  bool agrees = psnr >= floor;
  std::printf("  %s: %.1f dB, %.0f wanted: %s\n", name.c_str(), psnr, floor, agrees ? "pass" : "FAIL");
  return agrees;
}

// The results of the program, or of its one graph or model.
std::vector<Tensor> Call(const json::Object& run, const std::string& folder,
                         std::vector<Tensor> arguments, ffi::Function only,
                         const json::Array& outputs) {
  std::vector<Tensor> results;
  std::vector<ffi::AnyView> views;
  if (only != nullptr) {
    for (const auto& item : outputs) {
      results.push_back(Empty(item.cast<json::Object>(), kDevice));
      arguments.push_back(results.back());
    }
    for (const Tensor& argument : arguments) views.push_back(argument);
    ffi::Any nothing;
    only.CallPacked(views.data(), static_cast<int32_t>(views.size()), &nothing);
    return results;
  }
  auto library = ffi::Module::LoadFromFile(folder + "/" + Text(run, "library"));
  auto machine = (*library->GetFunction("vm_load_executable"))().cast<ffi::Module>();
  (*machine->GetFunction("vm_initialization"))(kDevice.device_type, 0, kPooled, kDLCPU, 0, kPooled);
  auto main = *machine->GetFunction("main");
  for (const Tensor& argument : arguments) views.push_back(argument);
  ffi::Any result;
  main.CallPacked(views.data(), static_cast<int32_t>(views.size()), &result);  // builds kernels
  Tvm("runtime.Device_StreamSync", kDevice, 0);
  auto start = std::chrono::steady_clock::now();
  main.CallPacked(views.data(), static_cast<int32_t>(views.size()), &result);
  Tvm("runtime.Device_StreamSync", kDevice, 0);
  std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
  std::printf("  %.1f ms\n", spent.count());
  if (auto one = result.as<Tensor>()) return {*one};
  for (const auto& item : result.cast<ffi::Array<Tensor>>()) results.push_back(item);
  return results;
}

bool Run(const std::string& folder) {
  auto run = json::Parse(ffi::String(ReadAll(folder + "/run.json"))).cast<json::Object>();
  std::string file = folder + "/" + Text(run, "parameters_file");
  ffi::Function part = nullptr;
  for (const auto& item : At<json::Array>(run, "graphs")) {
    part = Register(item.cast<json::Object>(), file);
  }
  for (const auto& item : At<json::Array>(run, "models")) {
    part = RegisterHost(item.cast<json::Object>(), folder);
  }
  std::vector<Tensor> arguments;
  for (const auto& item : At<json::Array>(run, "inputs")) {
    json::Object input = item.cast<json::Object>();
    arguments.push_back(Load(input, folder + "/" + Text(input, "file"), kDevice));
  }
  for (const auto& item : At<json::Array>(run, "parameters")) {
    arguments.push_back(Load(item.cast<json::Object>(), file, kDevice));
  }
  auto outputs = At<json::Array>(run, "outputs");
  bool whole = !Text(run, "library").empty();
  std::printf("%s\n", folder.c_str());
  auto results = Call(run, folder, arguments, whole ? ffi::Function(nullptr) : part, outputs);
  bool agrees = results.size() == outputs.size();
  for (size_t i = 0; i < results.size() && i < outputs.size(); ++i) {
    agrees = Compare(results[i], outputs[i].cast<json::Object>(), folder) && agrees;
  }
  return agrees;
}

}  // namespace

int main(int count, char** words) {
#ifdef SDCONV_PLUGIN
  if (dlopen(SDCONV_PLUGIN, RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 3;
  }
#endif
  int failed = 0;
  for (int i = 1; i < count; ++i) {
    try {
      failed += Run(words[i]) ? 0 : 1;
    } catch (const std::exception& e) {
      std::printf("%s: FAIL: %s\n", words[i], e.what());
      ++failed;
    }
    std::fflush(stdout);
  }
  std::printf("%s: %d of %d agree\n", failed ? "FAIL" : "pass", count - 1 - failed, count - 1);
  return failed ? 1 : 0;
}
