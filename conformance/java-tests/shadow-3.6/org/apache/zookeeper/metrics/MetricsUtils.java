package org.apache.zookeeper.metrics;

import java.util.HashMap;
import java.util.Map;
import paddock.conformance.ServerProcess;

/**
 * Stands before the class of this name in ZooKeeper's tests, which reads the metrics of this JVM. Those of the server
 * process come from its {@code mntr}, whose keys are the metrics' names after {@code zk_}.
 */
public abstract class MetricsUtils {

    private MetricsUtils() {
    }

    public static Map<String, Object> collect(MetricsProvider provider) {
        return currentServerMetrics();
    }

    public static Map<String, Object> currentServerMetrics() {
        Map<String, Object> metrics = new HashMap<>();
        for (String line : ServerProcess.latestAnswer("mntr").split("\n")) {
            String[] fields = line.split("\t");
            if (fields.length == 2 && fields[0].startsWith("zk_")) {
                metrics.put(fields[0].substring("zk_".length()), number(fields[1].trim()));
            }
        }
        return metrics;
    }

    private static Object number(String text) {
        try {
            return text.contains(".") ? (Object) Double.valueOf(text) : (Object) Long.valueOf(text);
        } catch (NumberFormatException e) {
            return text;
        }
    }
}
