// The contract of BlobStore on a real NFS server, and what is special to NFS.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "storage/contract/blob_store_contract.h"
#include "storage/contract/samples.h"
#include "storage/nfs/nfs_store.h"
#include "storage/nfs/nfs_url.h"
#include "storage/store_layout.h"
#include "test/support/ganesha.h"

namespace cms::storage::testing {
namespace {

namespace fs = std::filesystem;

// One server for all tests of this program; each has a directory of its own below the export.
test::Ganesha& server() {
  static const auto ganesha = test::Ganesha::start();
  if (!ganesha) {
    ADD_FAILURE() << ganesha.error().message();
    std::abort();
  }
  return **ganesha;
}

std::string url_of(const std::string& directory) {
  std::string url = server().url();
  return url.insert(url.find('?'), "/" + directory);
}

std::unique_ptr<BlobStore> make_store(const std::string& directory, std::uint64_t incarnation) {
  const auto target = parse_nfs_url(url_of(directory));
  EXPECT_TRUE(target.ok());
  return make_nfs_store(*target, "a", incarnation);
}

std::string fresh_directory() {
  static int count = 0;
  const std::string name = "s" + std::to_string(++count);
  fs::create_directory(server().export_path() + "/" + name);
  return name;
}

class NfsFixture final : public StoreFixture {
 public:
  NfsFixture() : directory_(fresh_directory()) { (void)reopened(); }
  NfsFixture(const NfsFixture&) = delete;
  NfsFixture& operator=(const NfsFixture&) = delete;
  ~NfsFixture() override {
    store_.reset();
    fs::remove_all(server().export_path() + "/" + directory_);
  }
  BlobStore& store() override { return *store_; }
  BlobStore& reopened() override {
    store_ = make_store(directory_, ++incarnation_);
    const Status opened = store_->open_store();
    EXPECT_TRUE(opened.ok()) << opened.error().message();
    return *store_;
  }
  void damage_chunk(const BlobName& name, std::uint64_t chunk_index) override {
    const std::string path = server().export_path() + "/" + directory_ + "/d/" +
                             shard_name(shard_of(name.lineage)) + "/" + to_file_name(name);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(64 + chunk_index * kChunkBytes + 100);
    file.seekg(at);
    const int byte = file.get();
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(file.good());
  }

 private:
  const std::string directory_;
  std::unique_ptr<BlobStore> store_;
  std::uint64_t incarnation_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Nfs, BlobStoreContract, ::testing::Values([]() -> std::unique_ptr<StoreFixture> {
                           return std::make_unique<NfsFixture>();
                         }));

}  // namespace
}  // namespace cms::storage::testing
