import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.ClusterMetrics;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.HRegionLocation;
import org.apache.hadoop.hbase.ServerName;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptorBuilder;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.client.Delete;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.RegionLocator;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.client.TableDescriptorBuilder;
import org.apache.hadoop.hbase.util.Bytes;

/**
 * HBase's Java client. Rows are {@code HH-NNNNNNNN}, with HH from the number, so that they spread over all regions. Each has
 * its number as value.
 */
public final class HBaseDriver {

    private static final byte[] FAMILY = Bytes.toBytes("f");
    private static final byte[] COLUMN = Bytes.toBytes("number");

    private final Configuration settings;
    private final Connection connection;
    /** A connection of its own: it keeps to the master that it knows for as long as that answers. */
    private Connection administration;
    private Admin admin;
    /** The numbers of the rows whose put was acknowledged. */
    private final Set<Long> acknowledged = new ConcurrentSkipListSet<>();
    private final AtomicLong next = new AtomicLong();
    private final AtomicLong refused = new AtomicLong();
    private volatile Thread writer;

    private HBaseDriver(Configuration settings, Connection connection) throws IOException {
        this.settings = settings;
        this.connection = connection;
        connectAdmin();
    }

    private void connectAdmin() throws IOException {
        administration = ConnectionFactory.createConnection(settings);
        admin = administration.getAdmin();
    }

    public static void main(String[] args) throws Exception {
        Configuration settings = HBaseConfiguration.create();
        try (Connection connection = ConnectionFactory.createConnection(settings)) {
            LineDriver.serve(new HBaseDriver(settings, connection)::answer);
        }
        System.exit(0);
    }

    private String answer(String[] words) throws Exception {
        switch (words[0]) {
            case "status":
                return status();
            case "reconnect":
                administration.close();
                connectAdmin();
                return "";
            case "create":
                create(words[1], Arrays.copyOfRange(words, 2, words.length));
                return "";
            case "drop":
                admin.disableTable(TableName.valueOf(words[1]));
                admin.deleteTable(TableName.valueOf(words[1]));
                return Boolean.toString(admin.tableExists(TableName.valueOf(words[1])));
            case "put":
                for (long left = Long.parseLong(words[2]); left > 0; left--) {
                    put(words[1], next.getAndIncrement());
                }
                return Integer.toString(acknowledged.size());
            case "write":
                write(words[1]);
                return "";
            case "stop-writing":
                stopWriting();
                return acknowledged.size() + " " + refused.get();
            case "written":
                return Integer.toString(acknowledged.size());
            case "verify":
                return verify(words[1]);
            case "get":
                return get(words[1], Long.parseLong(words[2]));
            case "delete":
                return delete(words[1], Long.parseLong(words[2]));
            case "regions":
                return regions(words[1]);
            case "split":
                admin.splitRegionAsync(regionOf(words[1], words[2]).getRegion().getRegionName(), Bytes.toBytes(words[2])).get();
                return "";
            case "merge":
                byte[][] both = {regionOf(words[1], words[2]).getRegion().getRegionName(),
                    regionOf(words[1], words[3]).getRegion().getRegionName()};
                admin.mergeRegionsAsync(both, false).get();
                return "";
            case "move":
                admin.move(regionOf(words[1], words[2]).getRegion().getEncodedNameAsBytes(), ServerName.valueOf(words[3]));
                return "";
            case "flush":
                admin.flush(TableName.valueOf(words[1]));
                return "";
            case "balancer":
                return Boolean.toString(admin.balancerSwitch(Boolean.parseBoolean(words[1]), true));
            case "shutdown":
                admin.shutdown();
                return "";
            default:
                throw new IllegalArgumentException("no command " + words[0]);
        }
    }

    /** {@code master|backups|region servers}, each by port. */
    private String status() throws IOException {
        ClusterMetrics metrics = admin.getClusterMetrics();
        String backups = metrics.getBackupMasterNames().stream().map(s -> Integer.toString(s.getPort())).sorted()
            .collect(Collectors.joining(","));
        String regionServers = metrics.getLiveServerMetrics().keySet().stream().map(ServerName::toString).sorted()
            .collect(Collectors.joining(" "));
        return metrics.getMasterName().getPort() + "|" + backups + "|" + regionServers;
    }

    private void create(String table, String[] splits) throws IOException {
        byte[][] keys = Arrays.stream(splits).map(Bytes::toBytes).toArray(byte[][]::new);
        TableDescriptorBuilder builder = TableDescriptorBuilder.newBuilder(TableName.valueOf(table))
            .setColumnFamily(ColumnFamilyDescriptorBuilder.of(FAMILY));
        admin.createTable(builder.build(), keys.length == 0 ? null : keys);
    }

    private static byte[] row(long number) {
        // The multiplier spreads neighbours over the first byte's range.
        return Bytes.toBytes(String.format("%02x-%08d", (number * 167) & 0xff, number));
    }

    private void put(String table, long number) throws IOException {
        try (Table to = connection.getTable(TableName.valueOf(table))) {
            to.put(new Put(row(number)).addColumn(FAMILY, COLUMN, Bytes.toBytes(number)));
            acknowledged.add(number);
        }
    }

    private void write(String table) {
        Thread thread = new Thread(() -> {
            while (writer == Thread.currentThread()) {
                try {
                    put(table, next.getAndIncrement());
                    Thread.sleep(1);
                } catch (IOException e) {
                    // Not acknowledged, so nothing is owed for it.
                    refused.incrementAndGet();
                    System.err.println("a put was refused: " + e);
                } catch (InterruptedException e) {
                    return;
                }
            }
        }, "writer");
        writer = thread;
        thread.start();
    }

    private void stopWriting() throws InterruptedException {
        Thread thread = writer;
        writer = null;
        if (thread != null) {
            thread.join();
        }
    }

    /** {@code acknowledged found missing wrong}. */
    private String verify(String table) throws IOException {
        Set<Long> missing = new TreeSet<>(acknowledged);
        int owed = missing.size();
        int found = 0;
        int wrong = 0;
        try (Table from = connection.getTable(TableName.valueOf(table));
            ResultScanner rows = from.getScanner(new Scan().addFamily(FAMILY).setCaching(500))) {
            for (Result row : rows) {
                long number = Bytes.toLong(row.getValue(FAMILY, COLUMN));
                found++;
                wrong += Bytes.equals(row.getRow(), row(number)) ? 0 : 1;
                missing.remove(number);
            }
        }
        if (!missing.isEmpty()) {
            System.err.println("missing: " + missing);
        }
        return owed + " " + found + " " + missing.size() + " " + wrong;
    }

    private String get(String table, long number) throws IOException {
        try (Table from = connection.getTable(TableName.valueOf(table))) {
            Result result = from.get(new Get(row(number)));
            return result.isEmpty() ? "none" : Long.toString(Bytes.toLong(result.getValue(FAMILY, COLUMN)));
        }
    }

    private String delete(String table, long number) throws IOException {
        try (Table from = connection.getTable(TableName.valueOf(table))) {
            from.delete(new Delete(row(number)));
            acknowledged.remove(number);
        }
        return get(table, number);
    }

    private HRegionLocation regionOf(String table, String key) throws IOException {
        try (RegionLocator locator = connection.getRegionLocator(TableName.valueOf(table))) {
            return locator.getRegionLocation(Bytes.toBytes(key), true);
        }
    }

    /** {@code start-key@port}, one for each region that is served; a start key that is empty is {@code -}. */
    private String regions(String table) throws IOException {
        List<String> found = new ArrayList<>();
        connection.clearRegionLocationCache();
        try (RegionLocator locator = connection.getRegionLocator(TableName.valueOf(table))) {
            for (HRegionLocation location : locator.getAllRegionLocations()) {
                String start = Bytes.toString(location.getRegion().getStartKey());
                if (location.getServerName() != null) {
                    found.add((start.isEmpty() ? "-" : start) + "@" + location.getServerName().getPort());
                }
            }
        }
        return String.join(" ", found);
    }
}
