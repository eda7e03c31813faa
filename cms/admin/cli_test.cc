#include "cms/admin/cli.h"

#include "cms/admin/cli_fixture_test.h"
#include "cms/admin/render.h"

namespace cms::admin {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// ---- usage

TEST_F(CliTest, WrongUsageIsExitCode2AndSaysWhatIsAllowed) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "checkpoints"},
      {{"stats"}, "'stats' is no command; allowed: status"},
      {{"status", "--colour"}, "--colour"},
      {{"status", "--output", "xml"}, "json"},
      {{"status", "--timeout", "soon"}, "500ms"},
      {{"status", "--timeout", "0s"}, "1ms"},
      {{"status", "--timeout", "25h"}, "24h"},
      {{"status", "--cms", "/run/a.sock"}, "ipc://PATH"},
      {{"status", "--cms", "tcp://h"}, "tcp://HOST:PORT"},
      {{"ecus", "--ecu-mac", "01:00:00:00:00:01"}, "--ecu-mac"},
      {{"checkpoints", "--program", "-1"}, "--program"},
      {{"show"}, "KEY"},
      {{"explain"}, "KEY"},
      {{"show", "7"}, "7"},
      {{"plan"}, "--fail"},
      {{"plan", "--fail", "01:00:00:00:00:01"}, "--fail: "},
      {{"plan", "--fail", "nonsense"}, "--fail: "},
      {{"plan", "--fail", "02:00:00:00:00:01", "02:00:00:00:00:02"}, "02:00:00:00:00:02"},
      {{"get", "02:00:00:00:00:01/7"}, "-o"},
      {{"retire", "02:00:00:00:00:01/7@1.1"}, "without a version"},
      {{"pin"}, "KEY"},
      {{"retention"}, "ACTION"},
      {{"retention", "go"}, "plan"},
      {{"retention", "plan", "02:00:00:00:00:01/7@1.1"}, "without a version"},
      {{"retention", "plan", "02:00:00:00:00:01/7", "--ecu-mac", "02:00:00:00:00:01"}, "--ecu-mac"},
  };
  for (const auto& [arguments, allowed] : cases) {
    EXPECT_EQ(run(arguments), kExitUsage) << allowed;
    EXPECT_THAT(err_, HasSubstr(allowed));
    EXPECT_EQ(out_, "");
  }
}

TEST_F(CliTest, HelpAndVersionAreDone) {
  EXPECT_EQ(run({"--help"}), kExitDone);
  EXPECT_THAT(out_, AllOf(HasSubstr("--cms"), HasSubstr("retire"), HasSubstr("Exit codes")));
  EXPECT_EQ(run({"get", "--help"}), kExitDone);
  EXPECT_EQ(run({"--version"}), kExitDone);
  EXPECT_THAT(out_, ::testing::MatchesRegex("cms-admin [0-9.]+\n"));
}

// ---- finding cmsd

TEST_F(CliTest, NobodyThereIsExitCode3AtOnce) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(run_at({"status", "--timeout", "1m"}), kExitUnreachable);
  EXPECT_THAT(err_, HasSubstr(endpoint_));
  EXPECT_EQ(run({"status", "--timeout", "1m", "--cms", "tcp://127.0.0.1:1"}), kExitUnreachable);
  { std::ofstream stale(directory_ + "/a.sock"); }
  EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", directory_ + "/f", "--timeout", "1m"}),
            kExitUnreachable);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(CliTest, SilenceIsExitCode3AfterTheTimeout) {
  FakeCmsd cmsd(endpoint_, [](const Frame&) { return std::vector<Message>(); });
  EXPECT_EQ(run_at({"status", "--timeout", "50ms"}), kExitUnreachable);
  EXPECT_THAT(err_, HasSubstr("50 ms"));
  EXPECT_EQ(run_at({"get", "02:00:00:00:00:01/7", "-o", directory_ + "/f", "--timeout", "50ms"}),
            kExitUnreachable);
}

TEST_F(CliTest, TakesTheEndpointFromTheEnvironmentAndTheFlagFirst) {
  FakeCmsd cmsd(endpoint_,
                [](const Frame& frame) { return answer_with(request_in(frame), Code::kOk, "", "{}"); });
  environment_["CMS_ADMIN"] = endpoint_;
  EXPECT_EQ(run({"status"}), kExitDone) << err_;
  environment_["CMS_ADMIN"] = "nonsense";
  EXPECT_EQ(run({"status"}), kExitUsage);
  EXPECT_EQ(run_at({"status"}), kExitDone);
}

TEST_F(CliTest, FindsTheOnlySocketAndListsSeveral) {
  EXPECT_EQ(run({"status"}), kExitUnreachable);
  EXPECT_THAT(err_, AllOf(HasSubstr("--cms"), HasSubstr(directory_ + "/run")));

  environment_["XDG_RUNTIME_DIR"] = directory_ + "/xdg";
  std::filesystem::create_directories(directory_ + "/xdg/cms");
  std::filesystem::create_directories(directory_ + "/run");
  { std::ofstream lock(directory_ + "/run/a.sock.lock"); }
  const std::string endpoint = "ipc://" + directory_ + "/xdg/cms/a.sock";
  FakeCmsd cmsd(endpoint,
                [](const Frame& frame) { return answer_with(request_in(frame), Code::kOk, "", "{}"); });
  EXPECT_EQ(run({"status"}), kExitDone) << err_;

  { std::ofstream other(directory_ + "/run/b.sock"); }
  EXPECT_EQ(run({"status"}), kExitUsage);
  EXPECT_THAT(err_, AllOf(HasSubstr(endpoint), HasSubstr(directory_ + "/run/b.sock")));
}

TEST_F(CliTest, PlanAsksAboutTheEcuAndEndsWith1WhenNotAllWouldGoOn) {
  std::string without_target = "0";
  std::vector<wire::AdminRequest> asked;
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    asked.push_back(request_in(frame));
    if (asked.back().ecu_mac == EcuMac{0x020000000009})
      return answer_with(asked.back(), Code::kNotFound, "ECU 02:00:00:00:00:09 is not known", "");
    return answer_with(
        asked.back(), Code::kOk, "",
        R"({"total":2,"unusable_logs":0,"programs":[],"without_target":)" + without_target + "}");
  });
  EXPECT_EQ(run_at({"plan", "--fail", "02:00:00:00:00:01"}), kExitDone) << err_;
  EXPECT_THAT(out_, HasSubstr("nothing was moved"));
  ASSERT_EQ(asked.size(), 1U);
  EXPECT_EQ(asked[0].method, wire::AdminMethod::kExplain);
  EXPECT_EQ(asked[0].ecu_mac, EcuMac{0x020000000001});
  EXPECT_FALSE(asked[0].has_program_id);
  without_target = "1";
  EXPECT_EQ(run_at({"plan", "--fail", "02:00:00:00:00:01", "--output", "json"}), kExitFailed);
  EXPECT_THAT(out_, HasSubstr("\"without_target\": 1"));
  EXPECT_EQ(err_, "cms-admin: 1 of 2 programs would not go on elsewhere\n");
  EXPECT_EQ(run_at({"plan", "--fail", "02:00:00:00:00:09"}), kExitFailed);
  EXPECT_EQ(err_, "cms-admin: ECU 02:00:00:00:00:09 is not known\n");
}

TEST(AdminEndpointTest, OfTcpIsTheFourthPortAboveTheBase) {
  EXPECT_EQ(*admin_endpoint("tcp://h:7400"), "tcp://h:7404");
  EXPECT_EQ(*admin_endpoint("tcp://[::1]:9000"), "tcp://[::1]:9004");
  EXPECT_EQ(*admin_endpoint("ipc:///run/cms/a.sock"), "ipc:///run/cms/a.sock");
  EXPECT_EQ(admin_endpoint("ipc:///" + std::string(107, 'x')).error().code, Code::kInvalidArgument);
}

// ---- questions

TEST_F(CliTest, AsksWhatTheCommandLineSays) {
  std::vector<wire::AdminRequest> asked;
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    asked.push_back(request_in(frame));
    return answer_with(asked.back(), Code::kOk, "", R"({"checkpoints":[],"ecus":[]})");
  });
  EXPECT_EQ(
      run_at({"checkpoints", "--ecu-mac", "02:00:00:00:00:01", "--program", "18446744073709551615", "--all"}),
      0);
  EXPECT_EQ(run_at({"ecus"}), 0);
  EXPECT_EQ(run_at({"show", "02:00:00:00:00:01/7@65536.3"}), 0);
  EXPECT_EQ(run_at({"retire", "02:00:00:00:00:02/0"}), 0);
  EXPECT_EQ(run_at({"pin", "02:00:00:00:00:02/0@1.2"}), 0);
  EXPECT_EQ(run_at({"unpin", "02:00:00:00:00:02/0"}), 0);
  EXPECT_EQ(run_at({"retention", "plan", "--output", "json"}), kExitFailed) << "not such an answer";
  EXPECT_EQ(run_at({"retention", "apply", "--ecu-mac", "02:00:00:00:00:01"}), kExitFailed);
  EXPECT_EQ(run_at({"retention", "plan", "02:00:00:00:00:02/0"}), kExitFailed);
  ASSERT_EQ(asked.size(), 9U);
  EXPECT_EQ(asked[4].method, wire::AdminMethod::kPin);
  EXPECT_EQ(asked[4].version, (Version{1, 2}));
  EXPECT_EQ(asked[5].method, wire::AdminMethod::kUnpin);
  EXPECT_EQ(asked[6].method, wire::AdminMethod::kRetentionPlan);
  EXPECT_FALSE(asked[6].has_ecu_mac);
  EXPECT_EQ(asked[7].method, wire::AdminMethod::kRetentionApply);
  EXPECT_EQ(asked[7].ecu_mac.bits, 0x020000000001U);
  EXPECT_FALSE(asked[7].has_program_id);
  EXPECT_TRUE(asked[8].has_ecu_mac && asked[8].has_program_id);
  EXPECT_EQ(asked[0].method, wire::AdminMethod::kCheckpoints);
  EXPECT_EQ(asked[0].ecu_mac.bits, 0x020000000001U);
  EXPECT_EQ(asked[0].program_id, UINT64_MAX);
  EXPECT_TRUE(asked[0].has_ecu_mac && asked[0].has_program_id && asked[0].all);
  EXPECT_EQ(asked[1].method, wire::AdminMethod::kEcus);
  EXPECT_FALSE(asked[1].has_ecu_mac || asked[1].has_program_id || asked[1].all);
  EXPECT_EQ(asked[2].method, wire::AdminMethod::kShow);
  EXPECT_TRUE(asked[2].has_version);
  EXPECT_EQ(asked[2].version, (Version{65536, 3}));
  EXPECT_EQ(asked[3].method, wire::AdminMethod::kRetire);
  EXPECT_EQ(asked[3].ecu_mac.bits, 0x020000000002U);
  EXPECT_FALSE(asked[3].has_version);
}

TEST_F(CliTest, ScrubBeginsAndFollowsItsOwnRunToTheEnd) {
  std::vector<wire::AdminRequest> asked;
  std::string ended = R"("state":"done","corrupt":0,"checkpoints":2)";
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    asked.push_back(request_in(frame));
    if (asked.back().method == wire::AdminMethod::kScrub)
      return answer_with(asked.back(), Code::kOk, "", R"({"id":4,"state":"waiting"})");
    const std::string state = asked.size() < 4 ? R"("state":"running")" : ended;
    return answer_with(asked.back(), Code::kOk, "",
                       R"({"runs":[{"id":3,"what":"all","state":"done","corrupt":9,"shards_total":4096},)"
                       R"({"id":4,"what":"K","shards_total":null,"checkpoints_total":2,)" +
                           state + R"(,"found":[{"key":"K@1.2","reason":"chunk 5"}]}]})");
  });
  EXPECT_EQ(run_at({"scrub", "02:00:00:00:00:01/7@65536.3"}), kExitDone) << err_;
  ASSERT_GE(asked.size(), 4U);
  EXPECT_EQ(asked[0].method, wire::AdminMethod::kScrub);
  EXPECT_TRUE(asked[0].has_program_id && asked[0].has_version);
  EXPECT_EQ(asked[1].method, wire::AdminMethod::kScrubStatus);
  ended = R"("state":"done","corrupt":1,"checkpoints":2)";
  EXPECT_EQ(run_at({"scrub"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("1 damaged checkpoints were found"));
  EXPECT_THAT(out_, AllOf(HasSubstr("K@1.2"), HasSubstr("chunk 5")));
  EXPECT_EQ(run_at({"scrub", "--output", "json"}), kExitFailed);
  EXPECT_THAT(out_, AllOf(HasSubstr("\"id\": 4"), Not(HasSubstr("\"id\": 3"))));
  ended = R"("state":"broken off","trouble":"the store has gone")";
  EXPECT_EQ(run_at({"scrub"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("the store has gone"));
}

TEST_F(CliTest, IndexRebuildFollowsItToTheEnd) {
  std::size_t asked = 0;
  std::string trouble = "null";
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    const auto request = request_in(frame);
    const char* states[] = {"rebuilding", "rebuilding", "completing", "ok"};
    const std::string state = trouble == "null" ? states[std::min<std::size_t>(asked++, 3)] : "waiting";
    return answer_with(
        request, Code::kOk, "",
        R"({"state":")" + state + R"(","rows":17,"rebuild":true,"reason":"r","trouble":)" + trouble + "}");
  });
  EXPECT_EQ(run_at({"index", "rebuild"}), kExitDone) << err_;
  EXPECT_EQ(asked, 4U);
  EXPECT_THAT(out_, AllOf(HasSubstr("ok"), HasSubstr("17 rows")));
  EXPECT_EQ(run_at({"index", "status"}), kExitDone);
  trouble = "\"the store is away\"";
  EXPECT_EQ(run_at({"index", "rebuild"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("the store is away"));
  EXPECT_EQ(run_at({"index"}), kExitUsage);
}

TEST_F(CliTest, RefusalIsExitCode1WithItsReason) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    return answer_with(request_in(frame), Code::kNotFound, "nothing of that name", "");
  });
  EXPECT_EQ(run_at({"show", "02:00:00:00:00:01/7"}), kExitFailed);
  EXPECT_EQ(err_, "cms-admin: nothing of that name\n");
  EXPECT_EQ(out_, "");
}

TEST_F(CliTest, RefusalAsUnavailableIsNotTakenForSilence) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    return answer_with(request_in(frame), Code::kUnavailable, "the store is away", "");
  });
  EXPECT_EQ(run_at({"show", "02:00:00:00:00:01/7"}), kExitFailed);
}

TEST_F(CliTest, JoinsThePagesOfAList) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    const auto request = request_in(frame);
    if (request.continue_after.empty()) {
      return answer_with(request, Code::kOk, "", R"({"checkpoints":[{"key":"K1","state":"current"}]})",
                         "more");
    }
    EXPECT_EQ(request.continue_after, "more");
    return answer_with(request, Code::kOk, "",
                       R"({"checkpoints":[{"key":"K2","state":"failed","reason":"r"}]})");
  });
  EXPECT_EQ(run_at({"checkpoints"}), kExitDone);
  EXPECT_EQ(out_,
            "KEY  STATE    SIZE  STORED  AGE  NAME  REASON\n"
            "K1   current     -       -    -  -\n"
            "K2   failed      -       -    -  -     r\n");
  EXPECT_EQ(run_at({"checkpoints", "--output", "json"}), kExitDone);
  EXPECT_THAT(out_, AllOf(HasSubstr("\"K1\""), HasSubstr("\"K2\"")));
}

TEST_F(CliTest, AddsUpThePagesOfAPlan) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    const auto request = request_in(frame);
    const bool first = request.continue_after.empty();
    const bool applied = request.method == wire::AdminMethod::kRetentionApply;
    return answer_with(request, Code::kOk, "",
                       std::string(R"({"removals":[{"key":")") + (first ? "K1" : "K2") +
                           R"(","size_bytes":2048,"stored_bytes":1024,"age_s":90,"why":"old"}],"applied":)" +
                           (applied ? "true" : "false") +
                           R"(,"count":2,"stored_bytes":2048,"judged":5,"checkpoints":10})",
                       first ? "more" : "");
  });
  EXPECT_EQ(run_at({"retention", "plan"}), kExitDone);
  EXPECT_EQ(out_,
            "KEY     SIZE   STORED     AGE  WHY\n"
            "K1   2.0 KiB  1.0 KiB  1m 30s  old\n"
            "K2   2.0 KiB  1.0 KiB  1m 30s  old\n"
            "4 checkpoints, 4.0 KiB would go; 10 judged\n");
  EXPECT_EQ(run_at({"retention", "apply"}), kExitDone);
  EXPECT_EQ(out_, "removed 4 checkpoints, 4.0 KiB; 10 judged\n");
}

TEST_F(CliTest, PinSaysWhatIsPinned) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    const auto request = request_in(frame);
    const bool pin = request.method == wire::AdminMethod::kPin;
    return answer_with(request, Code::kOk, "",
                       pin ? R"({"key":"K@1.2","pinned":true})" : R"({"key":"K@1.2","pinned":false})");
  });
  EXPECT_EQ(run_at({"pin", "02:00:00:00:00:01/7"}), kExitDone);
  EXPECT_EQ(out_, "K@1.2 is pinned: retention leaves it\n");
  EXPECT_EQ(run_at({"unpin", "02:00:00:00:00:01/7"}), kExitDone);
  EXPECT_EQ(out_, "K@1.2 is not pinned\n");
}

TEST_F(CliTest, ListThatDoesNotMoveOnIsRefused) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    return answer_with(request_in(frame), Code::kOk, "", R"({"checkpoints":[]})", "same");
  });
  EXPECT_EQ(run_at({"checkpoints"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("does not move on"));
}

TEST_F(CliTest, MalformedAnswersAreExitCode1) {
  std::vector<Message> answers = {
      {Frame{1, 2, 3}},
      {Frame{}},
      {Frame(100, 0xff)},
      {Frame{1}, Frame{2}},
      {wire::encode(wire::AdminBody{wire::AdminRequest{}})},
  };
  std::size_t next = 0;
  FakeCmsd cmsd(endpoint_, [&](const Frame&) { return std::vector<Message>{answers[next]}; });
  for (; next < answers.size(); ++next) {
    EXPECT_EQ(run_at({"status", "--timeout", "1m"}), kExitFailed) << next;
    EXPECT_THAT(err_, HasSubstr(endpoint_));
  }
}

TEST_F(CliTest, AnswersThatAreNotTheExpectedJsonAreExitCode1) {
  std::string json;
  FakeCmsd cmsd(endpoint_,
                [&](const Frame& frame) { return answer_with(request_in(frame), Code::kOk, "", json); });
  for (const std::string wrong : {"", "{", "[]", "7", "{\"ecus\":7}", "null"}) {
    json = wrong;
    EXPECT_EQ(run_at({"ecus"}), kExitFailed) << wrong;
    EXPECT_THAT(err_, HasSubstr("cannot be read"));
  }
  // Odd values inside are printed as they are; nothing is executed by a terminal.
  json = R"({"ecus":[7,null,{"ecu_mac":"\u001b[31m\u009b1m","sessions":7},{"sessions":[[]]}]})";
  EXPECT_EQ(run_at({"ecus"}), kExitDone);
  EXPECT_THAT(out_, AllOf(HasSubstr("?[31m??1m"), Not(HasSubstr("\033")), Not(HasSubstr("\xc2\x9b"))));
  json = "{\"ecus\":[" + std::string(100000, '[') + std::string(100000, ']') + "]}";
  EXPECT_EQ(run_at({"ecus", "--output", "json"}), kExitDone);
}

TEST_F(CliTest, StatusHasALineAboutClaims) {
  const std::pair<const char*, const char*> kStores[] = {
      {R"({"claims_trusted":true})", "claims                the store can be trusted with claims\n"},
      {R"({"claims_trusted":false,"self_test":[{"trait":"exclusive create","holds":true},)"
       R"({"trait":"hard links","holds":false},{"trait":"synced writes","holds":false}]})",
       "claims                the store cannot be trusted with claims (hard links, synced writes): restores "
       "will "
       "be refused, storing goes on\n"},
      {R"({"claims_trusted":null,"self_test_trouble":"no space: create a file"})",
       "claims                not known whether the store can be trusted with claims: no space: create a "
       "file\n"},
      {R"({"claims_trusted":null,"self_test_trouble":null})",
       "claims                not known whether the store can be trusted with claims: not tried yet\n"}};
  std::string store;
  FakeCmsd cmsd(endpoint_, [&](const Frame& frame) {
    return answer_with(request_in(frame), Code::kOk, "", R"({"health":"ok","store":)" + store + "}");
  });
  for (const auto& [answered, printed] : kStores) {
    store = answered;
    EXPECT_EQ(run_at({"status"}), kExitDone) << err_;
    EXPECT_THAT(out_, HasSubstr(printed));
  }
  store = R"({"state":"ok"})";  // Of an older cmsd.
  EXPECT_EQ(run_at({"status"}), kExitDone) << err_;
  EXPECT_THAT(out_, Not(HasSubstr("claims")));
}

TEST_F(CliTest, AnAnswerToAnotherQuestionIsIgnored) {
  FakeCmsd cmsd(endpoint_, [](const Frame& frame) {
    auto request = request_in(frame);
    auto messages = answer_with(request, Code::kOk, "", R"({"health":"ok"})");
    --request.request_id;
    messages.insert(messages.begin(), answer_with(request, Code::kIo, "an old answer", "").front());
    return messages;
  });
  EXPECT_EQ(run_at({"status"}), kExitDone) << err_;
}

// ---- printing

TEST(RenderTest, SizesAndAgesAreForPeople) {
  EXPECT_EQ(human_size(0), "0 B");
  EXPECT_EQ(human_size(1023), "1023 B");
  EXPECT_EQ(human_size(1024), "1.0 KiB");
  EXPECT_EQ(human_size(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(human_size(std::uint64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(human_size(UINT64_MAX), "16.0 EiB");
  EXPECT_EQ(human_age(0), "0s");
  EXPECT_EQ(human_age(59), "59s");
  EXPECT_EQ(human_age(60), "1m");
  EXPECT_EQ(human_age(3661), "1h 1m");
  EXPECT_EQ(human_age(86400 * 3 + 7200), "3d 2h");
}

TEST(RenderTest, ColoursOnlyWhenAsked) {
  const std::vector<std::string> page = {R"({"health":"down","problems":[{"severity":"error","what":"W"}]})"};
  const auto plain = render(wire::AdminMethod::kStatus, page, Style{});
  ASSERT_TRUE(plain.ok());
  EXPECT_THAT(*plain, AllOf(HasSubstr("down"), HasSubstr("W"), Not(HasSubstr("\033"))));
  Style style;
  style.colour = true;
  EXPECT_THAT(*render(wire::AdminMethod::kStatus, page, style), HasSubstr("\033[31mdown\033[0m"));
}

}  // namespace
}  // namespace cms::admin
