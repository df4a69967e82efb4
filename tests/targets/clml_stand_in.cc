// A stand-in for TVM's CLML runtime: takes graphs and constants as that does, and computes those of
// one nn.dense in float32, on memory that host and device share. For the test of `phone/run.cc`.

#include <tvm/ffi/cast.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <string>

namespace {

namespace ffi = tvm::ffi;
namespace json = tvm::ffi::json;
using ffi::Tensor;

class StandIn : public ffi::ModuleObj {
 public:
  StandIn(std::string symbol, const ffi::String& graph) : symbol_(symbol) {
    auto nodes = json::Parse(graph).cast<json::Object>().at(ffi::String("nodes"));
    auto last = nodes.cast<json::Array>().back().cast<json::Object>();
    std::string name(last.at(ffi::String("name")).cast<ffi::String>());
    if (name != "nn.dense") TVM_FFI_THROW(RuntimeError) << "no " << name << " here";
  }

  const char* kind() const final { return "clml"; }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    ffi::Module alive = ffi::GetRef<ffi::Module>(this);
    if (std::string(name) == "__init_" + symbol_) {
      return ffi::Function([this, alive](ffi::PackedArgs args, ffi::Any* result) {
        constants_ = args[0].cast<ffi::Array<Tensor>>();
        *result = 0;
      });
    }
    if (std::string(name) != symbol_) return std::nullopt;
    return ffi::Function([this, alive](ffi::PackedArgs args, ffi::Any*) { Run(args); });
  }

 private:
  static float* Data(const Tensor& tensor) { return static_cast<float*>(tensor.data_ptr()); }

  void Run(ffi::PackedArgs args) {
    Tensor a = args[0].cast<Tensor>();
    Tensor b = constants_.empty() ? args[1].cast<Tensor>() : constants_[0];
    Tensor out = args[args.size() - 1].cast<Tensor>();
    int64_t rows = a.shape()[0], summed = a.shape()[1], columns = b.shape()[0];
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t n = 0; n < columns; ++n) {
        float sum = 0;
        for (int64_t k = 0; k < summed; ++k) sum += Data(a)[m * summed + k] * Data(b)[n * summed + k];
        Data(out)[m * columns + n] = sum;
      }
    }
  }

  std::string symbol_;
  ffi::Array<Tensor> constants_;
};

TVM_FFI_STATIC_INIT_BLOCK() {
  tvm::ffi::reflection::GlobalDef().def(
      "runtime.clml_runtime_create",
      [](ffi::String symbol, ffi::String graph, ffi::Array<ffi::String>) {
        return ffi::Module(ffi::make_object<StandIn>(std::string(symbol), graph));
      });
}

}  // namespace
