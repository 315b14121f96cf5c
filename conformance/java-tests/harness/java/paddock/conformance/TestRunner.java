package paddock.conformance;

import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.platform.engine.FilterResult;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.TestSource;
import org.junit.platform.engine.UniqueId;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.Launcher;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.PostDiscoveryFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/**
 * Runs one JUnit class and writes each event as a line of JSON at once, so that a class that hangs or a JVM that dies
 * still leaves the results it had.
 *
 * <p>Arguments: the events file, the class, the seconds a case may take, then {@code -x NAME} to leave a method out and
 * {@code -i NAME} to run only the methods so named. A case is called {@code Class.method}, with {@code [n]} for the nth
 * invocation of a parameterized one (from 1; in a parameterized class of JUnit 4 from 0). Only JUnit 5 ends a case that
 * takes too long.
 */
public final class TestRunner {

    private static final Pattern JUNIT4_PARAMETERS = Pattern.compile("\\w+(\\[[^\\]]*\\])\\(.*\\)");

    private static PrintWriter events;

    private TestRunner() {
    }

    public static void main(String[] args) throws Exception {
        events = new PrintWriter(Files.newBufferedWriter(Path.of(args[0]), StandardCharsets.UTF_8), true);
        Set<String> left = new HashSet<>();
        Set<String> only = new HashSet<>();
        for (int i = 3; i + 1 < args.length; i += 2) {
            (args[i].equals("-x") ? left : only).add(args[i + 1]);
        }
        PostDiscoveryFilter filter = descriptor -> {
            Optional<String> method = descriptor.getSource().filter(MethodSource.class::isInstance)
                .map(source -> ((MethodSource) source).getMethodName());
            boolean run = method.isEmpty() || !left.contains(method.get()) && (only.isEmpty() || only.contains(method.get()));
            return FilterResult.includedIf(run);
        };
        String limit = args[2] + " s";
        LauncherDiscoveryRequest request = LauncherDiscoveryRequestBuilder.request()
            .selectors(selectClass(args[1]))
            .filters(filter)
            .configurationParameter("junit.jupiter.execution.timeout.default", limit)
            .build();
        Launcher launcher = LauncherFactory.create();
        launcher.execute(request, new Listener(args[1]));
        event("end", args[1], "", "", 0);
        // Suites leave threads of theirs behind.
        System.exit(0);
    }

    private static synchronized void event(String kind, String name, String result, String reason, long millis) {
        events.println("{\"event\":" + quote(kind) + ",\"name\":" + quote(name) + ",\"result\":" + quote(result)
            + ",\"reason\":" + quote(reason) + ",\"millis\":" + millis + "}");
    }

    private static String quote(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < 0x20 || c > 0x7e) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    private static final class Listener implements TestExecutionListener {

        private final String className;
        private final Map<String, Long> started = new ConcurrentHashMap<>();

        Listener(String className) {
            this.className = className.substring(className.lastIndexOf('.') + 1);
        }

        private String nameOf(TestIdentifier id) {
            TestSource source = id.getSource().orElse(null);
            if (!(source instanceof MethodSource)) {
                return className + ".(class)";
            }
            String name = className + "." + ((MethodSource) source).getMethodName();
            UniqueId.Segment last = UniqueId.parse(id.getUniqueId()).getLastSegment();
            // JUnit 4: method[n](Class)
            Matcher parameters = JUNIT4_PARAMETERS.matcher(last.getValue());
            if (last.getType().equals("test") && parameters.matches()) {
                return name + parameters.group(1);
            }
            boolean invocation = last.getType().equals("test-template-invocation");
            return invocation ? name + "[" + last.getValue().replace("#", "") + "]" : name;
        }

        @Override
        public void executionStarted(TestIdentifier id) {
            started.put(id.getUniqueId(), System.nanoTime());
            if (id.isTest()) {
                event("start", nameOf(id), "", "", 0);
            }
        }

        @Override
        public void executionSkipped(TestIdentifier id, String reason) {
            event("case", nameOf(id), "skipped", reason, 0);
        }

        @Override
        public void executionFinished(TestIdentifier id, TestExecutionResult outcome) {
            Long begin = started.get(id.getUniqueId());
            long millis = begin == null ? 0 : (System.nanoTime() - begin) / 1_000_000;
            boolean ok = outcome.getStatus() == TestExecutionResult.Status.SUCCESSFUL;
            if (!id.isTest() && ok) {
                return;
            }
            String result = ok ? "passed" : outcome.getStatus() == TestExecutionResult.Status.ABORTED ? "skipped" : "failed";
            event("case", nameOf(id), result, outcome.getThrowable().map(TestRunner::reason).orElse(""), millis);
            outcome.getThrowable().ifPresent(error -> {
                StringWriter text = new StringWriter();
                error.printStackTrace(new PrintWriter(text));
                System.out.println("### " + nameOf(id) + ": " + text);
            });
        }
    }

    /** The first line of the message, and the first frame that is the suite's own. */
    private static String reason(Throwable error) {
        String message = error.toString().lines().findFirst().orElse("");
        for (StackTraceElement frame : error.getStackTrace()) {
            String owner = frame.getClassName();
            if (owner.startsWith("org.apache.") && (owner.contains("Test") || owner.contains(".test."))) {
                return message + " at " + frame.getFileName() + ":" + frame.getLineNumber();
            }
        }
        return message;
    }
}
