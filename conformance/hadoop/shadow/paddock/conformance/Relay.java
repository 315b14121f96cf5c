package paddock.conformance;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * One address in front of the servers of an ensemble, each new connection to the next of them, so that a test which
 * knows one server talks to all. It can drop every connection at once, which a server in another process cannot be
 * asked for.
 */
final class Relay implements AutoCloseable {

    private static final int CONNECT_MILLIS = 2000;

    private final ServerSocket listener = new ServerSocket();
    private final List<InetSocketAddress> servers;
    private final AtomicInteger next = new AtomicInteger();
    private final Set<Socket> open = ConcurrentHashMap.newKeySet();

    Relay(InetSocketAddress address, List<InetSocketAddress> servers) throws IOException {
        this.servers = List.copyOf(servers);
        listener.setReuseAddress(true);
        listener.bind(address);
        daemon("relay-accept", this::accept);
    }

    private void accept() {
        while (!listener.isClosed()) {
            try {
                Socket client = listener.accept();
                open.add(client);
                daemon("relay-connect", () -> join(client));
            } catch (IOException closed) {
                return;
            }
        }
    }

    private void join(Socket client) {
        for (int attempt = 0; attempt < servers.size(); attempt++) {
            Socket server = new Socket();
            try {
                server.connect(servers.get(Math.floorMod(next.getAndIncrement(), servers.size())), CONNECT_MILLIS);
                server.setTcpNoDelay(true);
                client.setTcpNoDelay(true);
            } catch (IOException down) {
                drop(server);
                continue;
            }
            open.add(server);
            AtomicInteger directions = new AtomicInteger(2);
            daemon("relay-to-server", () -> copy(client, server, directions));
            daemon("relay-to-client", () -> copy(server, client, directions));
            return;
        }
        drop(client);
    }

    private void copy(Socket from, Socket to, AtomicInteger directions) {
        byte[] buffer = new byte[16384];
        try {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            for (int count = in.read(buffer); count >= 0; count = in.read(buffer)) {
                out.write(buffer, 0, count);
            }
            // The end of one direction: a four-letter word's answer still comes back by the other.
            to.shutdownOutput();
            if (directions.decrementAndGet() > 0) {
                return;
            }
        } catch (IOException broken) {
            // Both ends go.
        }
        drop(from);
        drop(to);
    }

    private void drop(Socket socket) {
        open.remove(socket);
        try {
            socket.close();
        } catch (IOException ignored) {
            // It is closed either way.
        }
    }

    private static void daemon(String name, Runnable work) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        thread.start();
    }

    /** Drops every connection; new ones are taken. */
    void dropAll() {
        open.forEach(this::drop);
    }

    @Override
    public void close() throws IOException {
        listener.close();
        dropAll();
    }
}
