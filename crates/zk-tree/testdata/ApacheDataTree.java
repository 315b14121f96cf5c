import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.TreeSet;
import org.apache.jute.Record;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.ZooDefs.OpCode;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.data.StatPersisted;
import org.apache.zookeeper.server.DataNode;
import org.apache.zookeeper.server.DataTree;
import org.apache.zookeeper.server.ServerWatcher;
import org.apache.zookeeper.server.TxnLogEntry;
import org.apache.zookeeper.server.util.SerializeUtils;
import org.apache.zookeeper.txn.MultiTxn;

/**
 * Runs a script of watches and transactions through Apache ZooKeeper's DataTree and writes down what
 * came of each, in the form that tests/apache.rs compares with. How to use it is said there.
 */
public class ApacheDataTree {
    /** Apache's log goes elsewhere. */
    private static final PrintStream out = System.out;

    static {
        System.setOut(System.err);
    }

    private static final List<String> events = new ArrayList<>();

    private record Watcher(int id) implements ServerWatcher {
        @Override
        public void process(WatchedEvent event) {
            throw new IllegalStateException("server watchers get the ACL too");
        }

        @Override
        public void process(WatchedEvent event, List<ACL> acl) {
            events.add("event " + event.getType() + " " + event.getPath() + " " + text(acl) + "\t" + id);
        }
    }

    private static String text(List<ACL> acls) {
        StringBuilder text = new StringBuilder("acl");
        for (ACL acl : acls) {
            text.append(',').append(acl.getPerms()).append(':').append(acl.getId().getScheme());
            text.append(':').append(acl.getId().getId());
        }
        return text.toString();
    }

    private static String text(Stat s) {
        return "stat " + s.getCzxid() + " " + s.getMzxid() + " " + s.getCtime() + " " + s.getMtime() + " "
            + s.getVersion() + " " + s.getCversion() + " " + s.getAversion() + " " + s.getEphemeralOwner() + " "
            + s.getDataLength() + " " + s.getNumChildren() + " " + s.getPzxid();
    }

    private static String text(DataTree.ProcessTxnResult result) {
        if (result.multiResult != null) {
            StringBuilder text = new StringBuilder("multi");
            for (DataTree.ProcessTxnResult sub : result.multiResult) {
                text.append("; ").append(text(sub));
            }
            return text.toString();
        }
        if (result.err != 0) {
            return "err " + result.err;
        }
        return result.stat == null ? "ok" : text(result.stat);
    }

    /** One line for each trigger, with all who heard of it. */
    private static void printEvents(boolean sorted) {
        List<String> lines = new ArrayList<>();
        String last = null;
        TreeSet<Integer> ids = new TreeSet<>();
        for (String event : events) {
            String[] parts = event.split("\t");
            int id = Integer.parseInt(parts[1]);
            if (!parts[0].equals(last) || ids.contains(id)) {
                if (last != null) {
                    lines.add(last + " " + ids);
                }
                last = parts[0];
                ids.clear();
            }
            ids.add(id);
        }
        if (last != null) {
            lines.add(last + " " + ids);
        }
        if (sorted) {
            Collections.sort(lines);
        }
        lines.forEach(out::println);
        events.clear();
    }

    private static void dump(DataTree tree, String path) {
        DataNode node = tree.getNode(path);
        StatPersisted s = node.stat;
        String data = node.getData() == null ? "null" : "hex" + HexFormat.of().formatHex(node.getData());
        out.println("node " + path + " " + data + " " + text(tree.getACL(node)) + " " + s.getCzxid() + " "
            + s.getMzxid() + " " + s.getCtime() + " " + s.getMtime() + " " + s.getVersion() + " " + s.getCversion()
            + " " + s.getAversion() + " " + s.getEphemeralOwner() + " " + s.getPzxid());
        for (String child : new TreeSet<>(node.getChildren())) {
            dump(tree, (path.equals("/") ? "" : path) + "/" + child);
        }
    }

    public static void main(String[] args) throws Exception {
        DataTree tree = new DataTree();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            switch (words[0]) {
                case "watch" -> {
                    out.println(line);
                    Watcher watcher = new Watcher(Integer.parseInt(words[2]));
                    String path = words[3];
                    switch (words[1]) {
                        case "data" -> {
                            try {
                                tree.statNode(path, watcher);
                            } catch (org.apache.zookeeper.KeeperException.NoNodeException e) {
                                // The watch is set nevertheless.
                            }
                        }
                        case "child" -> tree.getChildren(path, null, watcher);
                        case "persistent" -> tree.addWatch(path, watcher, 0);
                        case "recursive" -> tree.addWatch(path, watcher, 1);
                        default -> throw new IllegalArgumentException(line);
                    }
                }
                case "txn" -> {
                    out.println(line);
                    TxnLogEntry entry = SerializeUtils.deserializeTxn(HexFormat.of().parseHex(words[1]));
                    Record txn = entry.getTxn();
                    String outcome = text(tree.processTxn(entry.getHeader(), txn));
                    out.println(outcome);
                    printEvents(entry.getHeader().getType() == OpCode.closeSession);
                    out.println("tree " + Long.toUnsignedString(tree.getTreeDigest()) + " "
                        + tree.getNodeCount() + " " + tree.getEphemeralsCount() + " "
                        + tree.getAllChildrenNumber("/a") + " " + tree.lastProcessedZxid + " " + tree.getWatchCount());
                }
                default -> { }
            }
        }
        dump(tree, "/");
    }
}
