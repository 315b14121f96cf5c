package paddock.conformance;

import java.io.File;
import java.io.IOException;
import java.net.InetSocketAddress;
import org.apache.zookeeper.server.ServerCnxn;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.apache.zookeeper.server.persistence.FileTxnSnapLog;

/** What {@link ExternalServerCnxnFactory} overrides in releases from 3.6 on. */
abstract class ReleaseCnxnFactory extends ServerCnxnFactory {

    /** Takes what the listener is asked for. */
    abstract void listenAt(InetSocketAddress addr, int maxcc, boolean secure) throws IOException;

    @Override
    public void configure(InetSocketAddress addr, int maxcc, int backlog, boolean secure) throws IOException {
        listenAt(addr, maxcc, secure);
    }

    @Override
    public int getSocketListenBacklog() {
        return -1;
    }

    @Override
    public void closeAll(ServerCnxn.DisconnectReason reason) {
    }

    static File logFolder(FileTxnSnapLog files) {
        return files.getDataLogDir();
    }
}
