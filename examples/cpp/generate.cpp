// Go on with token ids, greedily, in onnxruntime alone.
//
//     generate MODEL.onnx MAX_TOKENS STOP_ID... < ids of the prompt > ids of the answer
//
// The stop ids are `stop_token_ids` of the bundle's manifest.json; docs/apps.md says how a dialog
// becomes ids. It knows no tokenizer: onnxruntime-genai brings one, as does tokenizers-cpp.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

// An ONNX artifact, whose KV cache goes in and comes back longer at each step.
class Model {
 public:
  explicit Model(const std::filesystem::path& path)
      : session_(environment_, path.c_str(), Ort::SessionOptions{}) {
    Ort::AllocatorWithDefaultOptions allocator;
    names_ = {"input_ids", "attention_mask"};
    for (std::size_t index = 0; index < session_.GetInputCount(); ++index) {
      std::string name = session_.GetInputNameAllocated(index, allocator).get();
      if (name.rfind(kPast, 0) != 0) continue;
      auto shape = session_.GetInputTypeInfo(index).GetTensorTypeAndShapeInfo().GetShape();
      shape[0] = 1;  // batch, heads, past, head_dim
      shape[2] = 0;
      cache_.push_back(Ort::Value::CreateTensor<float>(allocator, shape.data(), shape.size()));
      results_.push_back("present." + name.substr(kPast.size()));
      names_.push_back(std::move(name));
    }
    results_.insert(results_.begin(), "logits");
  }

  // Read more tokens, and return the likeliest one after the last of them.
  std::int64_t step(std::vector<std::int64_t> ids) {
    seen_ += ids.size();
    std::vector<std::int64_t> mask(seen_, 1);
    std::vector<Ort::Value> inputs;
    inputs.push_back(row(ids));
    inputs.push_back(row(mask));
    std::move(cache_.begin(), cache_.end(), std::back_inserter(inputs));
    const auto names = pointers(names_), results = pointers(results_);
    auto outputs = session_.Run(Ort::RunOptions{}, names.data(), inputs.data(), inputs.size(),
                                results.data(), results.size());
    cache_.assign(std::make_move_iterator(outputs.begin() + 1),
                  std::make_move_iterator(outputs.end()));
    const auto info = outputs.front().GetTensorTypeAndShapeInfo();
    const float* end = outputs.front().GetTensorData<float>() + info.GetElementCount();
    const float* begin = end - info.GetShape()[2];  // the last row, also with --all-logits
    return std::max_element(begin, end) - begin;
  }

 private:
  static constexpr std::string_view kPast = "past_key_values.";

  static Ort::Value row(std::vector<std::int64_t>& values) {
    const std::int64_t shape[] = {1, static_cast<std::int64_t>(values.size())};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    return Ort::Value::CreateTensor<std::int64_t>(memory, values.data(), values.size(), shape, 2);
  }

  static std::vector<const char*> pointers(const std::vector<std::string>& names) {
    std::vector<const char*> found;
    for (const auto& name : names) found.push_back(name.c_str());
    return found;
  }

  Ort::Env environment_{ORT_LOGGING_LEVEL_WARNING, "example"};
  Ort::Session session_;
  std::vector<std::string> names_;
  std::vector<std::string> results_;
  std::vector<Ort::Value> cache_;
  std::size_t seen_ = 0;
};

int run(int count, char** arguments) {
  if (count < 3) {
    std::cerr << "usage: generate MODEL.onnx MAX_TOKENS STOP_ID... < ids\n";
    return 2;
  }
  Model model(arguments[1]);
  const int most = std::stoi(arguments[2]);
  std::set<std::int64_t> stops;
  for (int index = 3; index < count; ++index) stops.insert(std::stoll(arguments[index]));
  std::vector<std::int64_t> fed{std::istream_iterator<std::int64_t>(std::cin), {}};
  if (fed.empty()) {
    std::cerr << "no ids came in\n";
    return 2;
  }
  for (int index = 0; index < most; ++index) {
    const auto next = model.step(fed);
    if (stops.count(next) > 0) break;
    std::cout << next << ' ' << std::flush;
    fed = {next};
  }
  std::cout << '\n';
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(count, arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
