package paddock.conformance;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.Reader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Predicate;
import java.util.stream.Stream;

/**
 * A server in a process of its own, started from a zoo.cfg, for Java suites written to embed Apache's server.
 *
 * <p>Which server it is comes from system properties of this JVM: {@code conformance.server} is {@code apache} or
 * {@code paddock}; {@code conformance.server.java} and {@code conformance.server.classpath} start Apache's;
 * {@code conformance.server.binary} is Paddock's; {@code conformance.work} is the folder for configurations and logs;
 * {@code conformance.ports} is the range {@code LOW-HIGH} that automatic client ports come from.
 *
 * <p>Suites configure an embedded server by setting system properties, so those that a server reads are handed on: as
 * {@code -D} options to Apache's, in {@code SERVER_JVMFLAGS} to Paddock's.
 */
public final class ServerProcess {

    /** What a server reads; the suites' own settings share the first prefix and are left out by name. */
    private static final String[] FORWARDED = {"zookeeper.", "znode.", "jute.", "readonlymode.", "fsync.", "java.security.auth."};
    private static final Set<String> WITHHELD = Set.of("zookeeper.serverCnxnFactory", "zookeeper.junit.threadid");

    private static final AtomicInteger NUMBER = new AtomicInteger();
    private static final AtomicInteger NEXT_PORT = new AtomicInteger(-1);
    private static final Set<ServerProcess> RUNNING = ConcurrentHashMap.newKeySet();

    static {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> RUNNING.forEach(s -> s.process.destroyForcibly())));
    }

    private static volatile ServerProcess latest;

    private final Process process;
    private final Path config;
    private final InetSocketAddress address; // null: as the server's files say
    private final Path log;

    private ServerProcess(Process process, Path config, InetSocketAddress address, Path log) {
        this.process = process;
        this.config = config;
        this.address = address;
        this.log = log;
    }

    /**
     * Starts a server and returns once it serves clients.
     *
     * @param settings the lines of zoo.cfg; {@code dataDir} and {@code clientPort} must be among them
     * @param timeoutMillis how long the server may take
     * @throws IOException when the process ends or does not serve in time, with the end of its log
     */
    public static ServerProcess start(Map<String, String> settings, long timeoutMillis) throws IOException, InterruptedException {
        ServerProcess server = launch(settings);
        server.awaitServing(timeoutMillis);
        return server;
    }

    /**
     * Starts a server, which does not serve clients yet: one of an ensemble waits for the others.
     *
     * @param settings the lines of zoo.cfg; {@code dataDir} and {@code clientPort} must be among them
     */
    public static ServerProcess launch(Map<String, String> settings) throws IOException {
        return launch(settings, null);
    }

    /**
     * Starts a server as {@link #launch(Map)} does.
     *
     * @param place where its zoo.cfg is written; null for anywhere
     */
    public static ServerProcess launch(Map<String, String> settings, Path place) throws IOException {
        Path work = work();
        String name = newName();
        Map<String, String> lines = new TreeMap<>(settings);
        List<String> flags = forwardedFlags(lines);
        Path config = place == null ? work.resolve(name + ".cfg") : place;
        StringBuilder text = new StringBuilder();
        lines.forEach((key, value) -> text.append(key).append('=').append(value).append('\n'));
        Files.writeString(config, text);
        String host = lines.getOrDefault("clientPortAddress", "127.0.0.1");
        return launch(config, work.resolve(name + ".log"), flags, new InetSocketAddress(host, Integer.parseInt(lines.get("clientPort"))));
    }

    /** Starts a server with a zoo.cfg that is there, and that the server may edit. Its clients' port may be in a file of members. */
    public static ServerProcess launch(Path config) throws IOException {
        Map<String, String> lines = new TreeMap<>();
        return launch(config, work().resolve(newName() + ".log"), forwardedFlags(lines), null);
    }

    private static Path work() throws IOException {
        Path work = Path.of(System.getProperty("conformance.work", System.getProperty("java.io.tmpdir")));
        return Files.createDirectories(work);
    }

    private static String newName() {
        return "server-" + ProcessHandle.current().pid() + "-" + NUMBER.incrementAndGet();
    }

    private static ServerProcess launch(Path config, Path log, List<String> flags, InetSocketAddress address) throws IOException {
        String kind = System.getProperty("conformance.server", "paddock");
        List<String> command = new ArrayList<>();
        if (kind.equals("apache")) {
            command.add(System.getProperty("conformance.server.java", "java"));
            command.addAll(List.of("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.log.level=WARN"));
            command.addAll(flags);
            command.addAll(List.of("-cp", System.getProperty("conformance.server.classpath")));
            command.add("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        } else {
            command.add(System.getProperty("conformance.server.binary"));
            command.add("server");
        }
        command.add(config.toString());
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log.toFile());
        builder.redirectInput(new File("/dev/null"));
        builder.environment().remove("JVMFLAGS");
        builder.environment().put("SERVER_JVMFLAGS", String.join(" ", flags));
        ServerProcess server = new ServerProcess(builder.start(), config, address, log);
        RUNNING.add(server);
        latest = server;
        return server;
    }

    /**
     * The properties to hand on. {@code SERVER_JVMFLAGS} is split at white space, so a value that has some moves to
     * zoo.cfg instead, where every {@code zookeeper.} property may stand without that prefix.
     */
    private static List<String> forwardedFlags(Map<String, String> lines) {
        List<String> flags = new ArrayList<>();
        for (String key : new TreeSet<>(System.getProperties().stringPropertyNames())) {
            if (WITHHELD.contains(key) || !startsWithAny(key)) {
                continue;
            }
            String value = System.getProperty(key);
            if (value.chars().anyMatch(Character::isWhitespace) && key.startsWith("zookeeper.")) {
                lines.putIfAbsent(key.substring("zookeeper.".length()), value);
            } else {
                flags.add("-D" + key + "=" + value);
            }
        }
        return flags;
    }

    private static boolean startsWithAny(String key) {
        for (String prefix : FORWARDED) {
            if (key.startsWith(prefix)) {
                return true;
            }
        }
        return false;
    }

    /**
     * Returns once the server serves clients.
     *
     * @throws IOException when the process ends or does not serve in time, with the end of its log
     */
    public void awaitServing(long timeoutMillis) throws IOException, InterruptedException {
        // A server whose whitelist lacks srvr still says so, which proves that it serves as well.
        await(timeoutMillis, answer -> !answer.isEmpty() && !answer.contains("not currently serving"), "serve");
    }

    /**
     * Returns once the server answers, be it that it does not serve: one of an ensemble that has no leader.
     *
     * @throws IOException when the process ends or does not answer in time, with the end of its log
     */
    public void awaitListening(long timeoutMillis) throws IOException, InterruptedException {
        await(timeoutMillis, answer -> !answer.isEmpty(), "answer");
    }

    private void await(long timeoutMillis, Predicate<String> enough, String what) throws IOException, InterruptedException {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeoutMillis);
        while (process.isAlive()) {
            if (enough.test(fourLetter("srvr"))) {
                return;
            }
            if (System.nanoTime() > end) {
                stop();
                throw new IOException("the server did not " + what + " within " + timeoutMillis + " ms; " + logEnd());
            }
            Thread.sleep(20);
        }
        RUNNING.remove(this);
        throw new IOException("the server ended with " + process.exitValue() + "; " + logEnd());
    }

    /** The answer to a four-letter word, empty when the server cannot be reached. */
    public String fourLetter(String word) {
        try (Socket socket = new Socket()) {
            socket.connect(address(), 1000);
            socket.setSoTimeout(2000);
            socket.getOutputStream().write(word.getBytes(StandardCharsets.US_ASCII));
            socket.getOutputStream().flush();
            try (InputStream in = socket.getInputStream()) {
                return new String(in.readAllBytes(), StandardCharsets.UTF_8);
            }
        } catch (IOException e) {
            return "";
        }
    }

    /** What the server started last answers to a four-letter word; empty when it does not run. */
    public static String latestAnswer(String word) {
        ServerProcess server = latest;
        return server == null ? "" : server.fourLetter(word);
    }

    private String logEnd() {
        try {
            String text = Files.readString(log);
            return "its log ends: " + text.substring(Math.max(0, text.length() - 800));
        } catch (IOException e) {
            return "its log cannot be read";
        }
    }

    /** The process stands still, or goes on. */
    public void pause(boolean paused) {
        try {
            String signal = paused ? "-STOP" : "-CONT";
            new ProcessBuilder("kill", signal, Long.toString(process.pid())).inheritIO().start().waitFor();
        } catch (IOException e) {
            throw new IllegalStateException("the process " + process.pid() + " cannot be signalled", e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** The remote ports of the connections that the process has. */
    public Set<Integer> connectedTo() throws IOException {
        Path self = Path.of("/proc", Long.toString(process.pid()));
        Set<String> sockets = new TreeSet<>();
        try (Stream<Path> descriptors = Files.list(self.resolve("fd"))) {
            for (Path descriptor : (Iterable<Path>) descriptors::iterator) {
                try {
                    sockets.add(Files.readSymbolicLink(descriptor).toString());
                } catch (NoSuchFileException e) {
                    // Closed in the meantime.
                }
            }
        }
        Set<Integer> ports = new TreeSet<>();
        for (String table : List.of("net/tcp", "net/tcp6")) {
            for (String line : Files.readAllLines(self.resolve(table))) {
                // number, local address, remote address, state, ..., and the tenth is the inode
                String[] fields = line.trim().split("\\s+");
                if (fields[3].equals("01") && sockets.contains("socket:[" + fields[9] + "]")) {
                    ports.add(Integer.parseInt(fields[2].substring(fields[2].indexOf(':') + 1), 16));
                }
            }
        }
        return ports;
    }

    /** Asks the server to end, and ends it by force after ten seconds. Returns when the process is gone. */
    public void stop() {
        process.destroy();
        boolean interrupted = false;
        try {
            if (!process.waitFor(10, TimeUnit.SECONDS)) {
                process.destroyForcibly().waitFor();
            }
        } catch (InterruptedException e) {
            interrupted = true;
            process.destroyForcibly();
        }
        RUNNING.remove(this);
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** The address that clients connect to, which a reconfiguration may have changed. */
    public InetSocketAddress address() throws IOException {
        Properties lines = read(config);
        Path myid = Path.of(lines.getProperty("dataDir"), "myid");
        String id = Files.exists(myid) ? Files.readString(myid).trim() : "";
        String members = lines.getProperty("dynamicConfigFile");
        if (members != null && Files.exists(Path.of(members))) {
            read(Path.of(members)).forEach(lines::putIfAbsent);
        }
        // server.N=host:port:port:part;[host:]port
        String client = lines.getProperty("server." + id, "").replaceFirst("^[^;]*;?", "");
        int colon = client.lastIndexOf(':');
        String port = client.isEmpty() ? lines.getProperty("clientPort", "") : client.substring(colon + 1);
        String host = client.isEmpty() ? lines.getProperty("clientPortAddress", "") : client.substring(0, Math.max(colon, 0));
        if (port.isEmpty() && address == null) {
            throw new IOException(config + " says nothing of the clients' port");
        }
        if (port.isEmpty()) {
            return address;
        }
        boolean any = host.isEmpty() || host.equals("0.0.0.0");
        return new InetSocketAddress(any ? "127.0.0.1" : host, Integer.parseInt(port.trim()));
    }

    private static Properties read(Path file) throws IOException {
        Properties lines = new Properties();
        try (Reader reader = Files.newBufferedReader(file)) {
            lines.load(reader);
        }
        return lines;
    }

    /** Returns when the process has ended. */
    public void awaitEnd() throws InterruptedException {
        process.waitFor();
        RUNNING.remove(this);
    }

    /** Whether the process still runs. */
    public boolean isAlive() {
        return process.isAlive();
    }

    /**
     * A client port that nobody listens on. Ports of the operating system's ephemeral range would not do: while a
     * server is down, a reconnecting client can be given the server's own port as its source and connect to itself.
     */
    public static int freePort() throws IOException {
        String[] range = System.getProperty("conformance.ports", "22000-22999").split("-");
        int low = Integer.parseInt(range[0]);
        int count = Integer.parseInt(range[1]) - low + 1;
        NEXT_PORT.compareAndSet(-1, (int) (ProcessHandle.current().pid() % count));
        for (int attempt = 0; attempt < count; attempt++) {
            int port = low + Math.floorMod(NEXT_PORT.getAndIncrement(), count);
            try (ServerSocket probe = new ServerSocket()) {
                probe.setReuseAddress(true);
                probe.bind(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), port));
                return port;
            } catch (IOException taken) {
                // The next one, then.
            }
        }
        throw new IOException("no free port in " + String.join("-", range));
    }
}
