#!/usr/bin/env python3
"""The C client's tests: which there are, and what came of them.

    results.py --cases TESTS EXPECTED.TXT [--quick] [CASE...]   suite and test of each case to run, one a line;
                                                               TESTS is the folder with the tests' sources
    results.py --failed LOG                                    the same of each case that failed
    results.py LOG AGAIN [TESTS EXPECTED.TXT]                  one JSON object a line for report.py, with the cases listed
                                                               as skip where TESTS is given. A case that failed and
                                                               passed when tried again says so

Names of cases are SUITE.TEST. LOG has what each case printed between `== SUITE TEST` and `== exit STATUS`.
"""

import fnmatch
import glob
import json
import re
import sys

# What the build defines; with TLS or SASL there would be more, and more tests.
DEFINED = {"THREADED", "ZOO_IPV6_ENABLED"}

# Not in the quick form: what takes ten seconds and more, and what looks at little but the client.
NOT_QUICK = {
    "testPing",
    "testAuth",
    "testAsyncWatcherAutoReset",
    "testWatcherAutoResetWithGlobal",
    "testWatcherAutoResetWithLocal",
    "testLogCallbackSet",
    "testLogCallbackInit",
    "testLogCallbackClear",
    "testDeserializeString",
    "testNonexistentHost",
    "testServersResolutionDelay",
    "testHangingClient",
    "testPath",
    "testSetData",
    "testNestedCreate",
    "testInvalidVersion",
    "testFirstServerDown",
    "testPathValidation",
    "testDeleteUpdateConflict",
    "testNonIncremental",
    "testRemoveFollower",
    "testReconfigFailureWithoutAuth",
    "testReconfigFailureWithoutServerSuperuserPasswordConfigured",
}


def tests_in(path):
    """Yields suite and test of what one source file registers, minding its #ifdefs."""
    stack, suite = [], None
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            line = line.strip()
            if line.startswith("#if"):
                words = line.split()
                name = words[1] if len(words) > 1 else ""
                if words[0] == "#ifdef":
                    stack.append(name in DEFINED)
                elif words[0] == "#ifndef":
                    stack.append(name not in DEFINED)
                else:
                    stack.append(True)
            elif line.startswith("#else") and stack:
                stack[-1] = not stack[-1]
            elif line.startswith("#endif") and stack:
                stack.pop()
            elif all(stack) and (match := re.match(r"CPPUNIT_TEST_SUITE\((\w+)\)", line)):
                suite = match[1]
            elif all(stack) and suite and (match := re.match(r"CPPUNIT_TEST\((\w+)\)", line)):
                yield suite, match[1]
            elif line.startswith("CPPUNIT_TEST_SUITE_END"):
                suite = None


def all_tests(folder):
    for path in sorted(glob.glob(folder + "/Test*.cc")):
        yield from tests_in(path)


def skips(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 3 and fields[1] == "skip" and not line.startswith("#"):
                yield fields[0], fields[2]


def results(path):
    """Yields case (suite and test), result and reason."""
    case, text = None, []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if match := re.match(r"== exit (\d+)$", line):
                if case:
                    yield case, *judge(int(match[1]), text)
                case = None
            elif match := re.match(r"== (\w+) (\w+)$", line):
                case, text = match.groups(), []
            elif line:
                text.append(line)


def judge(status, text):
    if status == 0 and any(re.search(r"^OK \(\d+\)|: OK$", line) for line in text):
        return "passed", ""
    told = [line.strip() for line in text if re.search(r"[Aa]ssert|ERROR|terminate|did not serve|error", line)]
    reason = " ".join(told[-3:]) or " ".join(text[-3:])
    if status == 124:
        reason = "it took longer than its limit; " + reason
    elif status > 128:
        reason = f"it died by signal {status - 128}; " + reason
    return "failed", reason or f"exit {status}"


def main():
    if sys.argv[1] == "--cases":
        left_out = [name for name, _ in skips(sys.argv[3])]
        wanted = [word for word in sys.argv[4:] if word != "--quick"]
        for suite, test in all_tests(sys.argv[2]):
            name = f"{suite}.{test}"
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in left_out):
                continue
            if wanted and not any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted):
                continue
            if "--quick" in sys.argv and test in NOT_QUICK:
                continue
            print(suite, test)
        return
    if sys.argv[1] == "--failed":
        for case, result, _ in results(sys.argv[2]):
            if result == "failed":
                print(*case)
        return
    cases = {".".join(case): (result, reason) for case, result, reason in results(sys.argv[1])}
    # The last try counts.
    for case, result, reason in results(sys.argv[2]):
        name = ".".join(case)
        if result == "passed":
            reason = "passed when tried again; before: " + cases[name][1]
        cases[name] = (result, reason)
    if len(sys.argv) > 3:
        rules = list(skips(sys.argv[4]))
        for name in (".".join(case) for case in all_tests(sys.argv[3])):
            for pattern, reason in rules:
                if fnmatch.fnmatchcase(name, pattern):
                    cases.setdefault(name, ("skipped", reason))
    for name, (result, reason) in cases.items():
        print(json.dumps({"name": name, "result": result, "reason": reason}))


if __name__ == "__main__":
    main()
