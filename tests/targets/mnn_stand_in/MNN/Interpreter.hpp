// A stand-in for MNN's header of this name, as far as `phone/run.cc` needs it: MNN's wheel has no
// headers. What the program asks of MNN, MNN's Python answers (ANSWER, the command of `run_once.py`),
// by way of a file for every tensor: the model's path, a dot and the tensor's name.

#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

enum MNNForwardType { MNN_FORWARD_CPU = 0 };

namespace MNN {

enum ErrorCode { NO_ERROR = 0, NOT_SUPPORT = 2 };

struct BackendConfig {
  enum PrecisionMode { Precision_Normal = 0, Precision_High, Precision_Low };
  PrecisionMode precision = Precision_Normal;
};

struct ScheduleConfig {
  MNNForwardType type = MNN_FORWARD_CPU;
  int numThread = 4;
  BackendConfig* backendConfig = nullptr;
};

class Tensor {
 public:
  enum DimensionType { TENSORFLOW, CAFFE };

  explicit Tensor(const std::string& file) : file_(file) { Load(); }
  Tensor(const Tensor* like, DimensionType) : bytes_(like->bytes_.size()) {}
  Tensor(const Tensor&) = delete;

  int size() const { return static_cast<int>(bytes_.size()); }

  template <typename T>
  T* host() const {
    return reinterpret_cast<T*>(const_cast<char*>(bytes_.data()));
  }

  bool copyFromHostTensor(const Tensor* from) {
    bytes_ = from->bytes_;
    std::ofstream(file_, std::ios::binary).write(bytes_.data(), size());
    return true;
  }

  bool copyToHostTensor(Tensor* to) const {
    to->bytes_ = bytes_;
    return true;
  }

  void Load() {
    std::ifstream file(file_, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }

 private:
  std::string file_;
  std::vector<char> bytes_;
};

class Session;

class Interpreter {
 public:
  static Interpreter* createFromFile(const char* file) {
    return std::ifstream(file) ? new Interpreter(file) : nullptr;
  }

  Session* createSession(const ScheduleConfig& config) {
    bool exact = config.backendConfig->precision == BackendConfig::Precision_High;
    return exact && Answer() ? reinterpret_cast<Session*>(this) : nullptr;
  }

  Tensor* getSessionInput(const Session*, const char* name) { return Find(name, input_); }
  Tensor* getSessionOutput(const Session*, const char* name) { return Find(name, output_); }

  ErrorCode runSession(Session*) const {
    if (!Answer()) return NOT_SUPPORT;
    output_->Load();
    return NO_ERROR;
  }

 private:
  explicit Interpreter(const char* file) : file_(file) {}

  bool Answer() const {
    return std::system((std::string(std::getenv("ANSWER")) + " " + file_).c_str()) == 0;
  }

  Tensor* Find(const char* name, std::unique_ptr<Tensor>& tensor) {
    tensor = std::make_unique<Tensor>(file_ + "." + name);
    return tensor->size() == 0 ? nullptr : tensor.get();
  }

  std::string file_;
  std::unique_ptr<Tensor> input_, output_;
};

}  // namespace MNN
