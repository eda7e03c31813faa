#pragma once
// cms-admin against a fake cmsd: a ROUTER on a Unix socket that answers what a test tells it to.
#include "cms/admin/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "net/socket.h"

namespace cms::admin {

using Frame = wire::Bytes;
using Message = std::vector<Frame>;
using Answerer = std::function<std::vector<Message>(const Frame& request)>;  // Runs on the fake's thread.

// Held while one runs, and passed by whoever looks at what it has noted: both are in one order then.
inline std::mutex answering;

class FakeCmsd {
 public:
  FakeCmsd(const std::string& endpoint, Answerer answerer) : answerer_(std::move(answerer)) {
    EXPECT_TRUE(net::bind(socket_, endpoint).ok());
    thread_ = std::thread([this] { serve(); });
  }
  FakeCmsd(const FakeCmsd&) = delete;
  FakeCmsd& operator=(const FakeCmsd&) = delete;
  ~FakeCmsd() {
    stopping_ = true;
    waker_.wake();
    thread_.join();
  }

 private:
  void serve() {
    std::vector<zmq::message_t> frames;
    while (!stopping_) {
      while (net::receive(socket_, frames)) {
        if (frames.size() != 2) continue;
        const auto* data = static_cast<const std::uint8_t*>(frames[1].data());
        std::vector<Message> answers;
        {
          const std::lock_guard<std::mutex> lock(answering);
          answers = answerer_(Frame(data, data + frames[1].size()));
        }
        for (const Message& message : answers) send(frames[0], message);
      }
      zmq::pollitem_t items[] = {{socket_.handle(), 0, ZMQ_POLLIN, 0}, {nullptr, waker_.fd(), ZMQ_POLLIN, 0}};
      zmq::poll(items, 2, std::chrono::milliseconds(-1));
    }
  }

  // A cms-admin that has seen enough is gone before it has been told everything.
  void send(const zmq::message_t& to, const Message& message) {
    const net::Sent began = net::send(socket_, to.data(), to.size(), true);
    if (began == net::Sent::kUnreachable) return;
    EXPECT_EQ(began, net::Sent::kYes);
    for (std::size_t i = 0; i < message.size(); ++i) {
      EXPECT_EQ(net::send(socket_, message[i].data(), message[i].size(), i + 1 < message.size()),
                net::Sent::kYes);
    }
  }

  Answerer answerer_;
  zmq::context_t context_;
  zmq::socket_t socket_ = net::make_admin_router(context_);
  net::Waker waker_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

inline wire::AdminRequest request_in(const Frame& frame) {
  const auto body = wire::decode_admin(frame.data(), frame.size());
  EXPECT_TRUE(body.ok());
  return std::get<wire::AdminRequest>(*body);
}

inline std::vector<Message> answer_with(const wire::AdminRequest& request, Code code, std::string context,
                                        std::string json, std::string next = {}) {
  return {{wire::encode(wire::AdminBody{
      wire::AdminAnswer{request.request_id, code, std::move(context), std::move(json), std::move(next)}})}};
}

class CliTest : public ::testing::Test {
 protected:
  CliTest() {
    std::string directory = ::testing::TempDir() + "cms_admin_XXXXXX";
    directory_ = ::mkdtemp(directory.data());
    endpoint_ = "ipc://" + directory_ + "/a.sock";
  }
  ~CliTest() override { std::filesystem::remove_all(directory_); }

  int run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "cms-admin");
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    Surroundings surroundings;
    surroundings.environment = [this](const char* name) -> const char* {
      const auto found = environment_.find(name);
      return found == environment_.end() ? nullptr : found->second.c_str();
    };
    surroundings.system_directory = directory_ + "/run";
    const std::string out_path = directory_ + "/out";
    const std::string err_path = directory_ + "/err";
    std::FILE* out = std::fopen(out_path.c_str(), "w+");
    std::FILE* err = std::fopen(err_path.c_str(), "w+");
    { const std::lock_guard<std::mutex> lock(answering); }
    const int exit_code = admin::run(static_cast<int>(argv.size()), argv.data(), surroundings, out, err);
    { const std::lock_guard<std::mutex> lock(answering); }
    std::fclose(out);
    std::fclose(err);
    out_ = content(out_path);
    err_ = content(err_path);
    return exit_code;
  }
  int run_at(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--cms", endpoint_});
    return run(std::move(arguments));
  }
  static std::string content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_))
      names.push_back(entry.path().filename());
    return names;
  }

  std::string directory_;
  std::string endpoint_;
  std::map<std::string, std::string> environment_;
  std::string out_;
  std::string err_;
};

}  // namespace cms::admin
