#include "test/bench/raw_nfs.h"

// libnfs.h before the others, which need it.
#include <nfsc/libnfs.h>

#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw.h>
#include <poll.h>
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <optional>

namespace cms::bench {
namespace {

constexpr std::uint64_t kCallBytes = kMiB;  // The most that libnfs 4 and Ganesha take at once.

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "raw NFS: " << what << '\n';
  std::exit(1);
}

void expect_ok(const char* what, nfsstat3 status) {
  if (status != NFS3_OK) fail(std::string(what) + " was answered with " + std::to_string(status));
}

// The same of all WRITEs of a file and of its COMMIT, or the server may have lost some.
class Verifier {
 public:
  void check(const char* bytes) {
    std::uint64_t verifier = 0;
    std::memcpy(&verifier, bytes, sizeof(verifier));
    if (first_.has_value() && *first_ != verifier) fail("the server has lost writes");
    first_ = verifier;
  }

 private:
  std::optional<std::uint64_t> first_;
};

nfs_fh3 handle_of(const std::string& handle) {
  nfs_fh3 result{};
  result.data.data_len = static_cast<u_int>(handle.size());
  result.data.data_val = const_cast<char*>(handle.data());
  return result;
}

diropargs3 place_of(const std::string& directory, const std::string& name) {
  diropargs3 result{};
  result.dir = handle_of(directory);
  result.name = const_cast<char*>(name.c_str());
  return result;
}

CREATE3args create_args(const std::string& directory, const std::string& name) {
  CREATE3args args{};
  args.where = place_of(directory, name);
  args.how.mode = GUARDED;
  args.how.createhow3_u.g_obj_attributes.mode.set_it = 1;
  args.how.createhow3_u.g_obj_attributes.mode.set_mode3_u.mode = 0644;
  return args;
}

WRITE3args write_args(const std::string& file, std::uint64_t offset, const char* data,
                      std::uint64_t size_bytes, stable_how stable) {
  WRITE3args args{};
  args.file = handle_of(file);
  args.offset = offset;
  args.count = static_cast<count3>(size_bytes);
  args.stable = stable;
  args.data.data_len = static_cast<u_int>(size_bytes);
  args.data.data_val = const_cast<char*>(data);
  return args;
}

std::string handle_in(const post_op_fh3& handle) {
  if (handle.handle_follows == 0) fail("CREATE gave no handle");
  return {handle.post_op_fh3_u.handle.data.data_val, handle.post_op_fh3_u.handle.data.data_len};
}

}  // namespace

RawNfs::RawNfs(std::uint16_t nfs_port, std::uint16_t mount_port) {
  // Two connections: the handle of the export comes by the first.
  for (const bool mount : {true, false}) {
    rpc_ = rpc_init_context();
    wait(
        "connect",
        [&](Callback callback, void* data) {
          return mount ? rpc_connect_port_async(rpc_, "127.0.0.1", mount_port, MOUNT_PROGRAM, MOUNT_V3,
                                                callback, data)
                       : rpc_connect_port_async(rpc_, "127.0.0.1", nfs_port, NFS_PROGRAM, NFS_V3, callback,
                                                data);
        },
        [](const void*) {});
    if (!mount) break;
    std::string path = "/cms";
    wait(
        "mount",
        [&](Callback callback, void* data) {
          return rpc_mount3_mnt_async(rpc_, callback, path.data(), data);
        },
        [&](const void* data) {
          const auto& result = *static_cast<const mountres3*>(data);
          if (result.fhs_status != MNT3_OK)
            fail("mount was answered with " + std::to_string(result.fhs_status));
          const auto& handle = result.mountres3_u.mountinfo.fhandle;
          root_.assign(handle.fhandle3_val, handle.fhandle3_len);
        });
    rpc_destroy_context(rpc_);
  }
}

RawNfs::~RawNfs() { rpc_destroy_context(rpc_); }

void RawNfs::call(const char* what, const Encode& encode, Answer answer) {
  struct Pending {
    const char* what;
    Answer answer;
  };
  auto pending = std::make_unique<Pending>(Pending{what, std::move(answer)});
  const Callback callback = [](rpc_context* rpc, int status, void* data, void* private_data) {
    const std::unique_ptr<Pending> done(static_cast<Pending*>(private_data));
    if (status == RPC_STATUS_CANCEL) return;  // The context goes.
    if (status != RPC_STATUS_SUCCESS) fail(std::string(done->what) + ": " + rpc_get_error(rpc));
    done->answer(data);
  };
  if (encode(callback, pending.get()) != 0) fail(std::string(what) + ": " + rpc_get_error(rpc_));
  (void)pending.release();  // The callback's.
}

void RawNfs::serve_until(const std::function<bool()>& done) {
  while (!done()) {
    pollfd item{rpc_get_fd(rpc_), static_cast<short>(rpc_which_events(rpc_)), 0};
    if (::poll(&item, 1, 30000) != 1) fail("no answer within 30 s");
    if (rpc_service(rpc_, item.revents) != 0) fail(rpc_get_error(rpc_));
  }
}

void RawNfs::wait(const char* what, const Encode& encode, Answer answer) {
  bool done = false;
  call(what, encode, [&](const void* data) {
    answer(data);
    done = true;
  });
  serve_until([&] { return done; });
}

std::string RawNfs::create(const std::string& name) {
  std::string file;
  CREATE3args args = create_args(root_, name);
  wait(
      "CREATE",
      [&](Callback callback, void* data) { return rpc_nfs3_create_async(rpc_, callback, &args, data); },
      [&](const void* data) {
        const auto& result = *static_cast<const CREATE3res*>(data);
        expect_ok("CREATE", result.status);
        file = handle_in(result.CREATE3res_u.resok.obj);
      });
  return file;
}

std::string RawNfs::lookup(const std::string& name) {
  std::string file;
  LOOKUP3args args{};
  args.what = place_of(root_, name);
  wait(
      "LOOKUP",
      [&](Callback callback, void* data) { return rpc_nfs3_lookup_async(rpc_, callback, &args, data); },
      [&](const void* data) {
        const auto& result = *static_cast<const LOOKUP3res*>(data);
        expect_ok("LOOKUP", result.status);
        const auto& handle = result.LOOKUP3res_u.resok.object.data;
        file.assign(handle.data_val, handle.data_len);
      });
  return file;
}

void RawNfs::write(const std::string& name, const void* data, std::uint64_t size_bytes,
                   std::size_t in_flight) {
  const std::string file = create(name);
  const auto* bytes = static_cast<const char*>(data);
  Verifier verifier;
  std::uint64_t sent = 0;
  std::size_t under_way = 0;
  const auto send_next = [&] {
    const std::uint64_t part = std::min(kCallBytes, size_bytes - sent);
    WRITE3args args = write_args(file, sent, bytes + sent, part, UNSTABLE);
    sent += part;
    ++under_way;
    call(
        "WRITE",
        [&](Callback callback, void* answer) { return rpc_nfs3_write_async(rpc_, callback, &args, answer); },
        [&, part](const void* answer) {
          const auto& result = *static_cast<const WRITE3res*>(answer);
          expect_ok("WRITE", result.status);
          if (result.WRITE3res_u.resok.count != part) fail("a short WRITE");
          verifier.check(result.WRITE3res_u.resok.verf);
          --under_way;
        });
  };
  while (sent < size_bytes || under_way > 0) {
    while (sent < size_bytes && under_way < in_flight) send_next();
    serve_until([&] { return under_way < in_flight && (sent < size_bytes || under_way == 0); });
  }
  COMMIT3args args{};
  args.file = handle_of(file);
  wait(
      "COMMIT",
      [&](Callback callback, void* answer) { return rpc_nfs3_commit_async(rpc_, callback, &args, answer); },
      [&](const void* answer) {
        const auto& result = *static_cast<const COMMIT3res*>(answer);
        expect_ok("COMMIT", result.status);
        verifier.check(result.COMMIT3res_u.resok.verf);
      });
}

void RawNfs::read(const std::string& name, void* target, std::uint64_t size_bytes, std::size_t in_flight) {
  const std::string file = lookup(name);
  auto* bytes = static_cast<char*>(target);
  std::uint64_t asked = 0;
  std::size_t under_way = 0;
  const auto send_next = [&] {
    const std::uint64_t offset = asked;
    const std::uint64_t part = std::min(kCallBytes, size_bytes - asked);
    READ3args args{};
    args.file = handle_of(file);
    args.offset = offset;
    args.count = static_cast<count3>(part);
    asked += part;
    ++under_way;
    call(
        "READ",
        [&](Callback callback, void* answer) { return rpc_nfs3_read_async(rpc_, callback, &args, answer); },
        [&, offset, part](const void* answer) {
          const auto& result = *static_cast<const READ3res*>(answer);
          expect_ok("READ", result.status);
          if (result.READ3res_u.resok.data.data_len != part) fail("a short READ");
          std::memcpy(bytes + offset, result.READ3res_u.resok.data.data_val, part);
          --under_way;
        });
  };
  while (asked < size_bytes || under_way > 0) {
    while (asked < size_bytes && under_way < in_flight) send_next();
    serve_until([&] { return under_way < in_flight && (asked < size_bytes || under_way == 0); });
  }
}

struct RawNfs::OneFile {
  std::string temporary;
  std::string name;
  std::string handle;
  Naming naming = Naming::kRename;
  Verifier verifier;
  std::function<void()> then;
};

void RawNfs::commit_one(const std::shared_ptr<OneFile>& file) {
  COMMIT3args args{};
  args.file = handle_of(file->handle);
  call(
      "COMMIT",
      [&](Callback callback, void* answer) { return rpc_nfs3_commit_async(rpc_, callback, &args, answer); },
      [this, file](const void* answer) {
        const auto& result = *static_cast<const COMMIT3res*>(answer);
        expect_ok("COMMIT", result.status);
        file->verifier.check(result.COMMIT3res_u.resok.verf);
        if (file->naming == Naming::kRename) return file->then();
        REMOVE3args removal{};
        removal.object = place_of(root_, file->temporary);
        call(
            "REMOVE",
            [&](Callback callback, void* data) {
              return rpc_nfs3_remove_async(rpc_, callback, &removal, data);
            },
            [this, file](const void* data) {
              expect_ok("REMOVE", static_cast<const REMOVE3res*>(data)->status);
              --removals_;
            });
        ++removals_;
        file->then();
      });
}

void RawNfs::name_one(const std::shared_ptr<OneFile>& file) {
  if (file->naming == Naming::kLink) {
    LINK3args args{};
    args.file = handle_of(file->handle);
    args.link = place_of(root_, file->name);
    return call(
        "LINK",
        [&](Callback callback, void* answer) { return rpc_nfs3_link_async(rpc_, callback, &args, answer); },
        [this, file](const void* answer) {
          expect_ok("LINK", static_cast<const LINK3res*>(answer)->status);
          commit_one(file);
        });
  }
  RENAME3args args{};
  args.from = place_of(root_, file->temporary);
  args.to = place_of(root_, file->name);
  call(
      "RENAME",
      [&](Callback callback, void* answer) { return rpc_nfs3_rename_async(rpc_, callback, &args, answer); },
      [this, file](const void* answer) {
        expect_ok("RENAME", static_cast<const RENAME3res*>(answer)->status);
        commit_one(file);
      });
}

void RawNfs::write_one(const std::string& name, const char* data, std::uint64_t size_bytes, Naming naming,
                       std::function<void()> then) {
  const auto file = std::make_shared<OneFile>();
  file->temporary = name + ".part";
  file->name = name;
  file->naming = naming;
  file->then = std::move(then);
  const auto write = [this, file, data, size_bytes] {
    WRITE3args args = write_args(file->handle, 0, data, size_bytes, FILE_SYNC);
    call(
        "WRITE",
        [&](Callback callback, void* answer) { return rpc_nfs3_write_async(rpc_, callback, &args, answer); },
        [this, file, size_bytes](const void* answer) {
          const auto& result = *static_cast<const WRITE3res*>(answer);
          expect_ok("WRITE", result.status);
          if (result.WRITE3res_u.resok.count != size_bytes) fail("a short WRITE");
          file->verifier.check(result.WRITE3res_u.resok.verf);
          name_one(file);
        });
  };
  CREATE3args args = create_args(root_, file->temporary);
  call(
      "CREATE",
      [&](Callback callback, void* answer) { return rpc_nfs3_create_async(rpc_, callback, &args, answer); },
      [file, write](const void* answer) {
        const auto& result = *static_cast<const CREATE3res*>(answer);
        expect_ok("CREATE", result.status);
        file->handle = handle_in(result.CREATE3res_u.resok.obj);
        write();
      });
}

void RawNfs::write_many(const std::string& prefix, const void* data, std::size_t count,
                        std::uint64_t size_bytes, std::size_t in_flight, Naming naming) {
  if (size_bytes > kCallBytes) fail("a small file is larger than one WRITE");
  const auto* bytes = static_cast<const char*>(data);
  std::size_t started = 0;
  std::size_t finished = 0;
  while (finished < count) {
    for (; started < count && started - finished < in_flight; ++started) {
      write_one(prefix + std::to_string(started), bytes + started * size_bytes, size_bytes, naming,
                [&finished] { ++finished; });
    }
    serve_until([&] { return finished == count || (started < count && started - finished < in_flight); });
  }
}

void RawNfs::wait_for_removals() {
  serve_until([this] { return removals_ == 0; });
}

void RawNfs::remove(const std::string& name) {
  REMOVE3args args{};
  args.object = place_of(root_, name);
  wait(
      "REMOVE",
      [&](Callback callback, void* data) { return rpc_nfs3_remove_async(rpc_, callback, &args, data); },
      [](const void* data) { expect_ok("REMOVE", static_cast<const REMOVE3res*>(data)->status); });
}

namespace {

class RawNfsSide : public Side {
 public:
  RawNfsSide(RawNfs& nfs, std::size_t in_flight) : nfs_(nfs), in_flight_(in_flight) {}
  std::string name() const override { return "raw NFS, 1 MiB x " + std::to_string(in_flight_); }
  double store(const Source& source) override {
    const Stopwatch watch;
    nfs_.write("raw", source.data, source.size_bytes, in_flight_);
    return watch.seconds();
  }
  void clean_up() override { nfs_.remove("raw"); }

 private:
  RawNfs& nfs_;
  std::size_t in_flight_;
};

class RawNfsManySide : public Side {
 public:
  RawNfsManySide(RawNfs& nfs, std::size_t count, std::size_t in_flight, RawNfs::Naming naming)
      : nfs_(nfs), count_(count), in_flight_(in_flight), naming_(naming) {}
  std::string name() const override {
    const std::string how = naming_ == RawNfs::Naming::kLink ? ", named by LINK" : "";
    return "raw NFS, files x " + std::to_string(in_flight_) + how;
  }
  double store(const Source& source) override {
    const Stopwatch watch;
    nfs_.write_many("raw-", source.data, count_, source.size_bytes / count_, in_flight_, naming_);
    return watch.seconds();
  }
  void clean_up() override {
    nfs_.wait_for_removals();
    for (std::size_t i = 0; i < count_; ++i) nfs_.remove("raw-" + std::to_string(i));
  }

 private:
  RawNfs& nfs_;
  std::size_t count_;
  std::size_t in_flight_;
  RawNfs::Naming naming_;
};

}  // namespace

std::unique_ptr<Side> make_raw_nfs(RawNfs& nfs, std::size_t in_flight) {
  return std::make_unique<RawNfsSide>(nfs, in_flight);
}

std::unique_ptr<Side> make_raw_nfs_many(RawNfs& nfs, std::size_t count, std::size_t in_flight,
                                        RawNfs::Naming naming) {
  return std::make_unique<RawNfsManySide>(nfs, count, in_flight, naming);
}

}  // namespace cms::bench
