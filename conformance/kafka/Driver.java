import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.serialization.*;
import org.apache.zookeeper.*;
import org.apache.zookeeper.data.Stat;

/**
 * Kafka's own clients, and ZooKeeper's, in one process that does what it is told: a JSON object a line comes in, one goes
 * out with the same "id" and either "result" or "error".
 *
 *   java -cp 'lib/*' Driver.java PLAINTEXT-BOOTSTRAP SASL-BOOTSTRAP ZOOKEEPER
 *
 * It keeps a ledger of each topic it produces to: every message is a number, and what was acknowledged, where, is compared
 * with what comes out.
 */
public class Driver {
    static final ObjectMapper JSON = new ObjectMapper();

    final String plain;
    final String sasl;
    final String ensemble;
    final Admin admin;
    ZooKeeper zooKeeper;
    final Map<String, Ledger> ledgers = new ConcurrentHashMap<>();
    final Map<String, Load> loads = new ConcurrentHashMap<>();
    final Map<String, Member> members = new ConcurrentHashMap<>();

    Driver(String plain, String sasl, String ensemble) {
        this.plain = plain;
        this.sasl = sasl;
        this.ensemble = ensemble;
        Map<String, Object> config = common(plain);
        config.put("request.timeout.ms", 15000);
        config.put("default.api.timeout.ms", 60000);
        this.admin = Admin.create(config);
    }

    static Map<String, Object> common(String bootstrap) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", bootstrap);
        config.put("reconnect.backoff.max.ms", 500);
        config.put("metadata.max.age.ms", 5000);
        return config;
    }

    /** What was sent to a topic and what became of it. */
    static class Ledger {
        final AtomicInteger next = new AtomicInteger();
        /** The number of each message that was acknowledged, and "partition:offset" of where it went. */
        final Map<Integer, String> acknowledged = new ConcurrentHashMap<>();
        final Queue<String> refused = new ConcurrentLinkedQueue<>();
    }

    Ledger ledger(String topic) {
        return ledgers.computeIfAbsent(topic, name -> new Ledger());
    }

    Producer<String, String> producer(String client) {
        Map<String, Object> config = common(plain);
        config.put("client.id", client);
        config.put("acks", "all");
        config.put("enable.idempotence", true);
        config.put("delivery.timeout.ms", 120000);
        config.put("request.timeout.ms", 10000);
        config.put("max.block.ms", 120000);
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    /** Sends the next message of a topic; which partition it goes to follows from its number. */
    static void send(Producer<String, String> producer, Ledger ledger, String topic, int partitions, int size) {
        int number = ledger.next.getAndIncrement();
        String value = String.format("%0" + size + "d", number);
        producer.send(new ProducerRecord<>(topic, number % partitions, null, value), (where, error) -> {
            if (error == null) {
                ledger.acknowledged.put(number, where.partition() + ":" + where.offset());
            } else {
                ledger.refused.add(number + ": " + error);
            }
        });
    }

    /** Produces until it is told to stop. */
    class Load extends Thread {
        final String topic;
        final int partitions;
        final int before;
        volatile boolean ends;

        Load(String topic, int partitions) {
            this.topic = topic;
            this.partitions = partitions;
            this.before = ledger(topic).acknowledged.size();
            setDaemon(true);
        }

        @Override
        public void run() {
            Ledger ledger = ledger(topic);
            try (Producer<String, String> producer = producer("load")) {
                while (!ends) {
                    send(producer, ledger, topic, partitions, 8);
                    Thread.sleep(2);
                }
                producer.flush();
            } catch (Exception error) {
                ledger.refused.add("the producer: " + error);
            }
        }
    }

    /** One member of a consumer group, which commits what it has seen. */
    class Member extends Thread {
        final String group;
        final String topic;
        final Set<Integer> seen = ConcurrentHashMap.newKeySet();
        volatile Set<Integer> assigned = Set.of();
        volatile boolean ends;
        volatile String error = "";

        Member(String group, String topic) {
            this.group = group;
            this.topic = topic;
            setDaemon(true);
        }

        @Override
        public void run() {
            Map<String, Object> config = common(plain);
            config.put("group.id", group);
            config.put("enable.auto.commit", false);
            config.put("auto.offset.reset", "earliest");
            config.put("session.timeout.ms", 10000);
            config.put("heartbeat.interval.ms", 1000);
            try (Consumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
                consumer.subscribe(List.of(topic));
                while (!ends) {
                    ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
                    Set<Integer> now = new TreeSet<>();
                    consumer.assignment().forEach(partition -> now.add(partition.partition()));
                    assigned = now;
                    records.forEach(record -> seen.add(Integer.parseInt(record.value())));
                    if (!records.isEmpty()) {
                        try {
                            consumer.commitSync();
                        } catch (CommitFailedException | org.apache.kafka.common.errors.RebalanceInProgressException again) {
                            // Another member gets these: they are seen twice, which a group may.
                        }
                    }
                }
            } catch (Exception failure) {
                error = failure.toString();
            }
        }
    }

    Object handle(String op, JsonNode ask) throws Exception {
        String name = ask.path("name").asText();
        String topic = ask.path("topic").asText();
        switch (op) {
            case "cluster": {
                DescribeClusterResult cluster = admin.describeCluster();
                List<Integer> brokers = new ArrayList<>();
                cluster.nodes().get().forEach(node -> brokers.add(node.id()));
                Collections.sort(brokers);
                return Map.of("id", cluster.clusterId().get(), "brokers", brokers);
            }
            case "create-topic":
                admin.createTopics(List.of(new NewTopic(topic, ask.path("partitions").asInt(), (short) ask.path("replicas").asInt()).configs(
                    strings(ask.path("config"))))).all().get();
                return true;
            case "create-placed-topic": {
                Map<Integer, List<Integer>> placed = new TreeMap<>();
                ask.path("placed").fields().forEachRemaining(one -> placed.put(Integer.parseInt(one.getKey()), numbers(one.getValue())));
                admin.createTopics(List.of(new NewTopic(topic, placed))).all().get();
                return true;
            }
            case "delete-topic":
                admin.deleteTopics(List.of(topic)).all().get();
                return true;
            case "topics":
                return new TreeSet<>(admin.listTopics(new ListTopicsOptions().listInternal(false)).names().get());
            case "add-partitions":
                admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(ask.path("partitions").asInt()))).all().get();
                return true;
            case "describe": {
                TopicDescription found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
                List<Object> partitions = new ArrayList<>();
                for (TopicPartitionInfo one : found.partitions()) {
                    Map<String, Object> fields = new TreeMap<>();
                    fields.put("leader", one.leader() == null ? -1 : one.leader().id());
                    fields.put("replicas", ids(one.replicas(), false));
                    fields.put("isr", ids(one.isr(), true));
                    partitions.add(fields);
                }
                return Map.of("id", found.topicId().toString(), "partitions", partitions);
            }
            case "produce": {
                Ledger ledger = ledger(topic);
                int refused = ledger.refused.size();
                try (Producer<String, String> producer = producer(ask.path("client").asText("driver"))) {
                    int size = ask.path("size").asInt(8);
                    for (int sent = 0; sent < ask.path("count").asInt(); sent++) {
                        send(producer, ledger, topic, ask.path("partitions").asInt(), size);
                    }
                    producer.flush();
                    double throttled = 0;
                    for (Map.Entry<MetricName, ? extends Metric> metric : producer.metrics().entrySet()) {
                        if (metric.getKey().name().equals("produce-throttle-time-max") && metric.getValue().metricValue() instanceof Double) {
                            double value = (Double) metric.getValue().metricValue();
                            throttled = Math.max(throttled, Double.isNaN(value) ? 0 : value);
                        }
                    }
                    List<String> fresh = new ArrayList<>(ledger.refused).subList(refused, ledger.refused.size());
                    return Map.of("refused", fresh.subList(0, Math.min(3, fresh.size())), "refusals", fresh.size(), "throttled", throttled);
                }
            }
            case "load-start": {
                Load load = new Load(topic, ask.path("partitions").asInt());
                loads.put(name, load);
                load.start();
                return true;
            }
            case "load-acknowledged": {
                Load load = loads.get(name);
                return ledger(load.topic).acknowledged.size() - load.before;
            }
            case "load-stop": {
                Load load = loads.remove(name);
                load.ends = true;
                load.join();
                return ledger(load.topic).acknowledged.size() - load.before;
            }
            case "verify":
                return verify(topic);
            case "member-start": {
                Member member = new Member(ask.path("group").asText(), topic);
                members.put(name, member);
                member.start();
                return true;
            }
            case "member": {
                Member member = members.get(name);
                return Map.of("seen", member.seen.size(), "assigned", member.assigned, "error", member.error);
            }
            case "member-stop": {
                Member member = members.get(name);
                member.ends = true;
                member.join();
                return member.error;
            }
            case "group": {
                // What the members of a group have missed of the topic, and how far the group is behind.
                Set<Integer> seen = new HashSet<>();
                String group = ask.path("group").asText();
                members.values().stream().filter(member -> member.group.equals(group)).forEach(member -> seen.addAll(member.seen));
                Set<Integer> missed = new TreeSet<>(ledger(topic).acknowledged.keySet());
                missed.removeAll(seen);
                Map<TopicPartition, OffsetAndMetadata> committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
                long behind = 0;
                for (Map.Entry<TopicPartition, Long> end : ends(topic).entrySet()) {
                    OffsetAndMetadata at = committed.get(end.getKey());
                    behind += end.getValue() - (at == null ? 0 : at.offset());
                }
                return Map.of("missed", missed.size(), "behind", behind);
            }
            case "config-set": {
                List<AlterConfigOp> changes = new ArrayList<>();
                strings(ask.path("config")).forEach((key, value) -> changes.add(new AlterConfigOp(new ConfigEntry(key, value), AlterConfigOp.OpType.SET)));
                ask.path("drop").forEach(key -> changes.add(new AlterConfigOp(new ConfigEntry(key.asText(), ""), AlterConfigOp.OpType.DELETE)));
                admin.incrementalAlterConfigs(Map.of(resource(ask), changes)).all().get();
                return true;
            }
            case "config": {
                // What is set here and not by default.
                Map<String, String> found = new TreeMap<>();
                for (ConfigEntry entry : admin.describeConfigs(List.of(resource(ask))).all().get().get(resource(ask)).entries()) {
                    if (EnumSet.of(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, ConfigEntry.ConfigSource.DYNAMIC_BROKER_CONFIG,
                            ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG).contains(entry.source())) {
                        found.put(entry.name(), entry.value());
                    }
                }
                return found;
            }
            case "quota-set": {
                List<ClientQuotaAlteration.Op> changes = new ArrayList<>();
                ask.path("quota").fields().forEachRemaining(one -> changes.add(
                    new ClientQuotaAlteration.Op(one.getKey(), one.getValue().isNull() ? null : one.getValue().asDouble())));
                admin.alterClientQuotas(List.of(new ClientQuotaAlteration(new ClientQuotaEntity(strings(ask.path("entity"))), changes))).all().get();
                return true;
            }
            case "quotas": {
                Map<String, Object> found = new TreeMap<>();
                admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get().forEach(
                    (entity, quota) -> found.put(new TreeMap<>(entity.entries()).toString(), new TreeMap<>(quota)));
                return found;
            }
            case "user-set":
                admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(
                    name, new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), ask.path("password").asText()))).all().get();
                return true;
            case "user-delete":
                admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_256))).all().get();
                return true;
            case "users":
                return new TreeSet<>(admin.describeUserScramCredentials().all().get().keySet());
            case "acl-add":
                admin.createAcls(List.of(acl(ask))).all().get();
                return true;
            case "acl-delete":
                return admin.deleteAcls(List.of(acl(ask).toFilter())).all().get().size();
            case "acls": {
                Set<String> found = new TreeSet<>();
                admin.describeAcls(AclBindingFilter.ANY).values().get().forEach(one -> found.add(one.toString()));
                return found;
            }
            case "produce-as": {
                // As a user of the listener that asks who one is; the name of what is thrown, or "" for an acknowledgement.
                Map<String, Object> config = common(sasl);
                config.put("security.protocol", "SASL_PLAINTEXT");
                config.put("sasl.mechanism", "SCRAM-SHA-256");
                config.put("sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"" + name
                    + "\" password=\"" + ask.path("password").asText() + "\";");
                config.put("acks", "all");
                // Asked without idempotence, which is a right of its own, and so once only.
                config.put("enable.idempotence", false);
                config.put("retries", 0);
                config.put("max.block.ms", 30000);
                try (Producer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
                    Ledger ledger = ledger(topic);
                    int number = ledger.next.getAndIncrement();
                    RecordMetadata where = producer.send(new ProducerRecord<>(topic, 0, null, String.format("%08d", number))).get();
                    ledger.acknowledged.put(number, where.partition() + ":" + where.offset());
                    return "";
                } catch (ExecutionException error) {
                    return error.getCause().getClass().getSimpleName();
                } catch (KafkaException error) {
                    return error.getClass().getSimpleName();
                }
            }
            case "elect-preferred":
                admin.electLeaders(ElectionType.PREFERRED, null).partitions().get();
                return true;
            case "reassign": {
                Map<TopicPartition, Optional<NewPartitionReassignment>> moves = new HashMap<>();
                ask.path("moves").fields().forEachRemaining(one -> moves.put(
                    new TopicPartition(topic, Integer.parseInt(one.getKey())), Optional.of(new NewPartitionReassignment(numbers(one.getValue())))));
                admin.alterPartitionReassignments(moves).all().get();
                return true;
            }
            case "reassignments":
                return admin.listPartitionReassignments().reassignments().get().size();
            case "zk-get": {
                byte[] data = zooKeeper(zk -> {
                    try {
                        return zk.getData(name, false, null);
                    } catch (KeeperException.NoNodeException none) {
                        return null;
                    }
                });
                return data == null ? null : new String(data, StandardCharsets.UTF_8);
            }
            case "zk-exists":
                return zooKeeper(zk -> zk.exists(name, false) != null);
            case "zk-is-ephemeral": {
                Stat stat = zooKeeper(zk -> zk.exists(name, false));
                return stat != null && stat.getEphemeralOwner() != 0;
            }
            case "zk-children":
                return zooKeeper(zk -> {
                    try {
                        return new TreeSet<>(zk.getChildren(name, false));
                    } catch (KeeperException.NoNodeException none) {
                        return new TreeSet<String>();
                    }
                });
            case "zk-create":
                return zooKeeper(zk -> zk.create(name, ask.path("data").asText().getBytes(StandardCharsets.UTF_8), ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
            case "zk-delete":
                zooKeeper(zk -> {
                    ZKUtil.deleteRecursive(zk, name);
                    return true;
                });
                return true;
            default:
                throw new IllegalArgumentException("no operation " + op);
        }
    }

    Map<TopicPartition, Long> ends(String topic) throws Exception {
        int partitions = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
        Map<TopicPartition, OffsetSpec> latest = new HashMap<>();
        for (int partition = 0; partition < partitions; partition++) {
            latest.put(new TopicPartition(topic, partition), OffsetSpec.latest());
        }
        Map<TopicPartition, Long> found = new HashMap<>();
        admin.listOffsets(latest).all().get().forEach((partition, offset) -> found.put(partition, offset.offset()));
        return found;
    }

    /** Reads the whole topic: each acknowledged message where its acknowledgement said, nothing twice, in order in each partition. */
    Object verify(String topic) throws Exception {
        Ledger ledger = ledger(topic);
        Map<TopicPartition, Long> ends = ends(topic);
        Map<Integer, String> missing = new TreeMap<>(ledger.acknowledged);
        Set<Integer> found = new HashSet<>();
        int twice = 0;
        int unordered = 0;
        int elsewhere = 0;
        Map<String, Object> config = common(plain);
        config.put("enable.auto.commit", false);
        config.put("auto.offset.reset", "none");
        try (Consumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(ends.keySet());
            consumer.seekToBeginning(ends.keySet());
            Map<Integer, Integer> last = new HashMap<>();
            long patience = System.nanoTime() + 60_000_000_000L;
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                if (System.nanoTime() > patience) {
                    throw new TimeoutException("the topic was not read within 60 s");
                }
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    int number = Integer.parseInt(record.value());
                    twice += found.add(number) ? 0 : 1;
                    Integer before = last.put(record.partition(), number);
                    unordered += before != null && before >= number ? 1 : 0;
                    String where = missing.remove(number);
                    elsewhere += where != null && !where.equals(record.partition() + ":" + record.offset()) ? 1 : 0;
                }
            }
        }
        Map<String, Object> result = new TreeMap<>();
        result.put("acknowledged", ledger.acknowledged.size());
        result.put("found", found.size());
        result.put("missing", missing.size());
        result.put("twice", twice);
        result.put("unordered", unordered);
        result.put("elsewhere", elsewhere);
        result.put("refused", ledger.refused.stream().limit(3).toArray());
        // Said once: the next case is not to fail for it.
        ledger.acknowledged.keySet().removeAll(missing.keySet());
        ledger.refused.clear();
        return result;
    }

    interface Asked<T> {
        T of(ZooKeeper zk) throws KeeperException, InterruptedException;
    }

    /** Asks again over a lost connection or session: what is asked here may be done twice. */
    synchronized <T> T zooKeeper(Asked<T> asked) throws Exception {
        long patience = System.nanoTime() + 60_000_000_000L;
        while (true) {
            if (zooKeeper == null || !zooKeeper.getState().isAlive()) {
                zooKeeper = new ZooKeeper(ensemble, 20000, event -> { });
            }
            try {
                return asked.of(zooKeeper);
            } catch (KeeperException.ConnectionLossException | KeeperException.SessionExpiredException lost) {
                if (System.nanoTime() > patience) {
                    throw lost;
                }
                Thread.sleep(100);
            }
        }
    }

    static Map<String, String> strings(JsonNode node) {
        Map<String, String> found = new HashMap<>();
        node.fields().forEachRemaining(one -> found.put(one.getKey(), one.getValue().asText()));
        return found;
    }

    static List<Integer> numbers(JsonNode node) {
        List<Integer> found = new ArrayList<>();
        node.forEach(one -> found.add(one.asInt()));
        return found;
    }

    static List<Integer> ids(List<Node> nodes, boolean sorted) {
        List<Integer> found = new ArrayList<>();
        nodes.forEach(node -> found.add(node.id()));
        if (sorted) {
            Collections.sort(found);
        }
        return found;
    }

    static ConfigResource resource(JsonNode ask) {
        return new ConfigResource(ConfigResource.Type.valueOf(ask.path("type").asText().toUpperCase(Locale.ROOT)), ask.path("name").asText());
    }

    static AclBinding acl(JsonNode ask) {
        return new AclBinding(
            new ResourcePattern(ResourceType.TOPIC, ask.path("topic").asText(), ask.path("prefixed").asBoolean() ? PatternType.PREFIXED : PatternType.LITERAL),
            new AccessControlEntry("User:" + ask.path("user").asText(), "*", AclOperation.fromString(ask.path("operation").asText()),
                AclPermissionType.fromString(ask.path("permission").asText("allow"))));
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        System.setOut(System.err);
        Driver driver = new Driver(args[0], args[1], args[2]);
        ExecutorService threads = Executors.newCachedThreadPool();
        BufferedReader asked = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = asked.readLine()) != null) {
            JsonNode ask = JSON.readTree(line);
            threads.execute(() -> {
                ObjectNode answer = JSON.createObjectNode();
                answer.set("id", ask.path("id"));
                try {
                    answer.set("result", JSON.valueToTree(driver.handle(ask.path("op").asText(), ask)));
                } catch (Throwable error) {
                    Throwable cause = error instanceof ExecutionException && error.getCause() != null ? error.getCause() : error;
                    answer.put("error", cause.getClass().getSimpleName() + ": " + cause.getMessage());
                }
                synchronized (answers) {
                    answers.println(answer);
                    answers.flush();
                }
            });
        }
        System.exit(0);
    }
}
