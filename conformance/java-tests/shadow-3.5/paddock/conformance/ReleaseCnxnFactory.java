package paddock.conformance;

import java.io.File;
import java.io.IOException;
import java.net.InetSocketAddress;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.apache.zookeeper.server.persistence.FileTxnSnapLog;

/** What {@link ExternalServerCnxnFactory} overrides in 3.5. */
abstract class ReleaseCnxnFactory extends ServerCnxnFactory {

    /** Takes what the listener is asked for. */
    abstract void listenAt(InetSocketAddress addr, int maxcc, boolean secure) throws IOException;

    @Override
    public void configure(InetSocketAddress addr, int maxcc, boolean secure) throws IOException {
        listenAt(addr, maxcc, secure);
    }

    @Override
    public boolean closeSession(long sessionId) {
        throw new UnsupportedOperationException("the server runs in another process");
    }

    @Override
    public void closeAll() {
    }

    static File logFolder(FileTxnSnapLog files) {
        return files.getDataDir();
    }
}
