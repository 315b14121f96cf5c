import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Set;
import java.util.StringJoiner;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.ha.HAServiceProtocol.HAServiceState;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.tools.NNHAServiceTarget;

/**
 * The HDFS client. A file is named by its number, and has it as content.
 */
public final class HdfsDriver {

    private static final String[] NAME_NODES = {"nn1", "nn2"};
    private static final Path FOLDER = new Path("/files");
    private static final int ASK_MILLIS = 2000;
    private static final int SAMPLE_MILLIS = 100;

    private final Configuration settings;
    private final String service;
    private final FileSystem files;
    /** The numbers of the files that were closed without an error. */
    private final Set<Long> acknowledged = new ConcurrentSkipListSet<>();
    private final AtomicLong next = new AtomicLong();
    private final AtomicLong refused = new AtomicLong();
    private final AtomicLong samples = new AtomicLong();
    private final AtomicLong doubles = new AtomicLong();
    private volatile Thread writer;

    private HdfsDriver(Configuration settings) throws IOException {
        this.settings = settings;
        this.service = settings.get("dfs.nameservices");
        this.files = FileSystem.get(settings);
    }

    public static void main(String[] args) throws Exception {
        LineDriver.serve(new HdfsDriver(new HdfsConfiguration())::answer);
        System.exit(0);
    }

    private String answer(String[] words) throws Exception {
        switch (words[0]) {
            case "states":
                StringJoiner states = new StringJoiner(" ");
                for (String nameNode : NAME_NODES) {
                    states.add(state(nameNode));
                }
                return states.toString();
            case "put":
                for (long left = Long.parseLong(words[1]); left > 0; left--) {
                    put(next.getAndIncrement());
                }
                return Integer.toString(acknowledged.size());
            case "write":
                Thread thread = new Thread(this::write, "writer");
                writer = thread;
                thread.start();
                return "";
            case "stop-writing":
                Thread writing = writer;
                writer = null;
                writing.join();
                return acknowledged.size() + " " + refused.get();
            case "written":
                return Integer.toString(acknowledged.size());
            case "read":
                return Long.toString(read(Long.parseLong(words[1])));
            case "verify":
                return verify();
            case "delete":
                long number = Long.parseLong(words[1]);
                files.delete(path(number), false);
                acknowledged.remove(number);
                return Boolean.toString(files.exists(path(number)));
            case "watch-states":
                Thread watcher = new Thread(this::watchStates, "states");
                watcher.setDaemon(true);
                watcher.start();
                return "";
            case "seen-states":
                return samples.get() + " " + doubles.get();
            case "failover":
                new NNHAServiceTarget(settings, service, words[1]).getZKFCProxy(settings, 30_000).gracefulFailover();
                return "";
            default:
                throw new IllegalArgumentException("no command " + words[0]);
        }
    }

    private String state(String nameNode) {
        try {
            HAServiceState state =
                new NNHAServiceTarget(settings, service, nameNode).getProxy(settings, ASK_MILLIS).getServiceStatus().getState();
            return state.toString();
        } catch (IOException e) {
            return "gone";
        }
    }

    /**
     * Counts the times that both were active at once. The first is asked again behind the second: active before and
     * after, it was so in between.
     */
    private void watchStates() {
        while (true) {
            boolean both = true;
            for (String nameNode : new String[] {NAME_NODES[0], NAME_NODES[1], NAME_NODES[0]}) {
                both = both && state(nameNode).equals("active");
            }
            samples.incrementAndGet();
            if (both) {
                doubles.incrementAndGet();
                System.err.println("both NameNodes are active");
            }
            try {
                Thread.sleep(SAMPLE_MILLIS);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    private static Path path(long number) {
        return new Path(FOLDER, Long.toString(number));
    }

    private void put(long number) throws IOException {
        try (FSDataOutputStream out = files.create(path(number), true)) {
            out.write(Long.toString(number).getBytes(StandardCharsets.US_ASCII));
        }
        acknowledged.add(number);
    }

    private void write() {
        while (writer == Thread.currentThread()) {
            try {
                put(next.getAndIncrement());
                Thread.sleep(20);
            } catch (IOException e) {
                // Not acknowledged, so nothing is owed for it.
                refused.incrementAndGet();
                System.err.println("a file was refused: " + e);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    private long read(long number) throws IOException {
        try (FSDataInputStream in = files.open(path(number))) {
            return Long.parseLong(new String(in.readAllBytes(), StandardCharsets.US_ASCII));
        }
    }

    /** {@code acknowledged found missing wrong}, with every acknowledged file read. */
    private String verify() throws IOException {
        Set<Long> owed = new TreeSet<>(acknowledged);
        Set<Long> missing = new TreeSet<>(owed);
        FileStatus[] found = files.listStatus(FOLDER);
        for (FileStatus file : found) {
            missing.remove(Long.parseLong(file.getPath().getName()));
        }
        long wrong = 0;
        for (long number : owed) {
            if (!missing.contains(number) && read(number) != number) {
                wrong++;
            }
        }
        if (!missing.isEmpty()) {
            System.err.println("missing: " + missing);
        }
        return owed.size() + " " + found.length + " " + missing.size() + " " + wrong;
    }
}
