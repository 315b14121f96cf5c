package paddock.conformance;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.Properties;
import javax.security.sasl.SaslException;
import org.apache.zookeeper.server.quorum.QuorumPeer;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig;
import org.apache.zookeeper.server.quorum.flexible.QuorumVerifier;

/** What {@link ExternalPeer} overrides in 3.5, where a server has one address. */
abstract class ReleasePeer extends QuorumPeer {

    ReleasePeer() throws SaslException {
    }

    /** Its line in the configuration. */
    abstract QuorumServer itself();

    @Override
    public InetSocketAddress getQuorumAddress() {
        return itself().addr;
    }

    @Override
    public InetSocketAddress getElectionAddress() {
        return itself().electionAddr;
    }

    static QuorumVerifier parse(Properties members) throws IOException, QuorumPeerConfig.ConfigException {
        return QuorumPeerConfig.parseDynamicConfig(members, 3, false, false);
    }
}
