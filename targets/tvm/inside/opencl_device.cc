// A device for TVM's runtime: OpenCL kernels run by an OpenCL whose device shares the host's memory
// (PoCL on a CPU). It proves the kernels that were generated for a phone; it is no fast way to run.
//
// TVM's wheel generates OpenCL C and can run none. It loads what is registered here under the names
// that it looks for: a device (`device_api.opencl`) and a module (`ffi.Module.load_from_bytes.opencl`).
// The bytes of a module are those that TVM 0.27 writes: format, functions by name with the types of
// their arguments and the tags of their launch, and the source, kernel after kernel.

#include <tvm/ffi/cast.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "opencl.h"

namespace {

namespace ffi = tvm::ffi;
using tvm::runtime::DeviceAPI;
using tvm::runtime::DeviceAttrKind;

void Check(cl_int code, const char* what) {
  if (code != CL_SUCCESS) {
    TVM_FFI_THROW(RuntimeError) << what << " failed with OpenCL's code " << code;
  }
}

// The first device that shares its memory with the host.
struct OpenCL {
  cl_device_id device = nullptr;
  cl_context context = nullptr;
  cl_command_queue queue = nullptr;

  OpenCL() {
    cl_uint count = 0;
    clGetPlatformIDs(0, nullptr, &count);
    std::vector<cl_platform_id> platforms(count);
    if (count != 0) Check(clGetPlatformIDs(count, platforms.data(), nullptr), "clGetPlatformIDs");
    for (cl_platform_id platform : platforms) {
      cl_uint here = 0;
      clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &here);
      std::vector<cl_device_id> devices(here);
      if (here != 0) clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, here, devices.data(), nullptr);
      for (cl_device_id one : devices) {
        cl_bitfield shared = 0;
        clGetDeviceInfo(one, CL_DEVICE_SVM_CAPABILITIES, sizeof(shared), &shared, nullptr);
        if (device == nullptr && (shared & CL_DEVICE_SVM_FINE_GRAIN_BUFFER)) device = one;
      }
    }
    if (device == nullptr) return;
    cl_int code;
    context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &code);
    Check(code, "clCreateContext");
    queue = clCreateCommandQueueWithProperties(context, device, nullptr, &code);
    Check(code, "clCreateCommandQueueWithProperties");
  }

  static OpenCL& Get() {
    static OpenCL* one = new OpenCL();
    return *one;
  }
};

// Memory of the device is memory of the host.
class SharedMemoryDevice : public DeviceAPI {
 public:
  void SetDevice(tvm::Device) final {}

  void GetAttr(tvm::Device dev, DeviceAttrKind kind, ffi::Any* result) final {
    if (kind == tvm::runtime::kExist) {
      *result = dev.device_id == 0 && OpenCL::Get().device != nullptr;
    } else if (kind == tvm::runtime::kDeviceName) {
      char name[256] = "";
      clGetDeviceInfo(OpenCL::Get().device, CL_DEVICE_NAME, sizeof(name), name, nullptr);
      *result = ffi::String(name);
    }
  }

  void* AllocDataSpace(tvm::Device, size_t nbytes, size_t alignment, DLDataType) final {
    void* memory = clSVMAlloc(OpenCL::Get().context,
                              CL_MEM_READ_WRITE | CL_MEM_SVM_FINE_GRAIN_BUFFER,
                              nbytes == 0 ? alignment : nbytes, static_cast<cl_uint>(alignment));
    if (memory == nullptr) TVM_FFI_THROW(RuntimeError) << "no memory for " << nbytes << " bytes";
    return memory;
  }

  void FreeDataSpace(tvm::Device dev, void* memory) final {
    StreamSync(dev, nullptr);
    clSVMFree(OpenCL::Get().context, memory);
  }

  void StreamSync(tvm::Device, TVMStreamHandle) final { clFinish(OpenCL::Get().queue); }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset,
                      size_t nbytes, tvm::Device dev, tvm::Device, DLDataType,
                      TVMStreamHandle) final {
    StreamSync(dev, nullptr);
    std::memcpy(static_cast<char*>(to) + to_offset, static_cast<const char*>(from) + from_offset,
                nbytes);
  }
};

// How a kernel is called: where each extent of its launch goes, grid 0 to 2, block 3 to 5.
struct Signature {
  std::vector<DLDataType> arguments;
  std::vector<int> extents;
};

class Reader {
 public:
  explicit Reader(const ffi::Bytes& bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  template <typename T>
  T Number() {
    T value;
    std::memcpy(&value, Take(sizeof(T)), sizeof(T));
    return value;
  }

  std::string Text() {
    size_t size = Number<uint64_t>();
    return std::string(Take(size), size);
  }

  Signature Function() {
    Signature result;
    Text();  // its name, once more
    for (uint64_t count = Number<uint64_t>(); count > 0; --count) {
      DLDataType type;
      type.code = Number<uint8_t>();
      type.bits = Number<uint8_t>();
      type.lanes = Number<uint16_t>();
      result.arguments.push_back(type);
    }
    for (uint64_t count = Number<uint64_t>(); count > 0; --count) {
      std::string tag = Text();
      bool block = tag.rfind("threadIdx.", 0) == 0;
      if (!block && tag.rfind("blockIdx.", 0) != 0) {
        TVM_FFI_THROW(RuntimeError) << "a kernel wants " << tag << ", which is not known here";
      }
      result.extents.push_back((block ? 3 : 0) + tag.back() - 'x');
    }
    for (uint64_t count = Number<uint64_t>(); count > 0; --count) Number<int32_t>();
    return result;
  }

 private:
  const char* Take(size_t size) {
    if (size > static_cast<size_t>(end_ - at_)) {
      TVM_FFI_THROW(RuntimeError) << "an OpenCL module is cut off, or of another version of TVM";
    }
    const char* here = at_;
    at_ += size;
    return here;
  }

  const char* at_;
  const char* end_;
};

class KernelModule : public ffi::ModuleObj {
 public:
  explicit KernelModule(const ffi::Bytes& bytes) {
    Reader reader(bytes);
    std::string format = reader.Text();
    if (format != "cl") TVM_FFI_THROW(RuntimeError) << "kernels in " << format;
    for (uint64_t count = reader.Number<uint64_t>(); count > 0; --count) {
      std::string name = reader.Text();
      signatures_[name] = reader.Function();
    }
    Split(reader.Text());
  }

  const char* kind() const final { return "opencl"; }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    auto found = signatures_.find(std::string(name));
    if (found == signatures_.end()) return std::nullopt;
    const Signature& signature = found->second;
    cl_kernel kernel = Build(found->first);
    ffi::Module alive = ffi::GetRef<ffi::Module>(this);
    return ffi::Function([alive, kernel, &signature](ffi::PackedArgs args, ffi::Any*) {
      Launch(kernel, signature, args);
    });
  }

 private:
  // Every kernel is preceded by a line with its name.
  void Split(const std::string& source) {
    const std::string mark = "// Function: ";
    for (size_t at = source.find(mark); at != std::string::npos;) {
      size_t end = source.find('\n', at);
      size_t next = source.find(mark, end);
      std::string name = source.substr(at + mark.size(), end - at - mark.size());
      sources_[name] = source.substr(end, next == std::string::npos ? next : next - end);
      at = next;
    }
  }

  cl_kernel Build(const std::string& name) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (kernels_.count(name)) return kernels_[name];
    OpenCL& cl = OpenCL::Get();
    const char* text = sources_.at(name).c_str();
    cl_int code;
    cl_program program = clCreateProgramWithSource(cl.context, 1, &text, nullptr, &code);
    Check(code, "clCreateProgramWithSource");
    // Not optimised: compiling takes nearly all of the time of kernels that run a few times.
    const char* options = "-cl-opt-disable";
    if (clBuildProgram(program, 1, &cl.device, options, nullptr, nullptr) != CL_SUCCESS) {
      std::string log(1 << 16, '\0');
      clGetProgramBuildInfo(program, cl.device, CL_PROGRAM_BUILD_LOG, log.size(), &log[0], nullptr);
      TVM_FFI_THROW(RuntimeError) << "OpenCL does not compile " << name << ": " << log.c_str();
    }
    cl_kernel kernel = clCreateKernel(program, name.c_str(), &code);
    Check(code, "clCreateKernel");
    return kernels_[name] = kernel;
  }

  static void Launch(cl_kernel kernel, const Signature& signature, ffi::PackedArgs args) {
    size_t count = signature.arguments.size();
    for (size_t i = 0; i < count; ++i) {
      const DLDataType& type = signature.arguments[i];
      cl_uint index = static_cast<cl_uint>(i);
      if (type.code == kDLOpaqueHandle) {
        Check(clSetKernelArgSVMPointer(kernel, index, args[i].cast<void*>()), "an argument");
      } else if (type.code == kDLFloat && type.bits == 32) {
        float value = static_cast<float>(args[i].cast<double>());
        Check(clSetKernelArg(kernel, index, sizeof(value), &value), "an argument");
      } else {  // the lower bytes are the number, on a machine whose lower bytes come first
        int64_t value = args[i].cast<int64_t>();
        Check(clSetKernelArg(kernel, index, type.bits / 8, &value), "an argument");
      }
    }
    size_t extents[6] = {1, 1, 1, 1, 1, 1};
    for (size_t i = 0; i < signature.extents.size(); ++i) {
      extents[signature.extents[i]] = static_cast<size_t>(args[count + i].cast<int64_t>());
    }
    for (int i = 0; i < 3; ++i) extents[i] *= extents[i + 3];
    cl_command_queue queue = OpenCL::Get().queue;
    Check(clEnqueueNDRangeKernel(queue, kernel, 3, nullptr, extents, extents + 3, 0, nullptr, nullptr),
          "a kernel's launch");
  }

  std::map<std::string, Signature> signatures_;
  std::map<std::string, std::string> sources_;
  std::map<std::string, cl_kernel> kernels_;
  std::mutex mutex_;
};

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("device_api.opencl",
           []() {
             static SharedMemoryDevice* device = new SharedMemoryDevice();
             return static_cast<void*>(static_cast<DeviceAPI*>(device));
           })
      .def("ffi.Module.load_from_bytes.opencl",
           [](const ffi::Bytes& bytes) { return ffi::Module(ffi::make_object<KernelModule>(bytes)); });
}

}  // namespace
