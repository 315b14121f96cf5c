package paddock.conformance;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.Collection;
import java.util.List;
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

    /** Where a member listens for learners. */
    static Collection<Integer> quorumPorts(QuorumServer member) {
        return List.of(member.addr.getPort());
    }

    /** What the tests have set in static fields; 3.5 has neither. */
    public static boolean closesSessionsByTxn() {
        return true;
    }

    public static boolean checksAclsEagerly() {
        return false;
    }

    static QuorumVerifier parse(Properties members) throws IOException, QuorumPeerConfig.ConfigException {
        return QuorumPeerConfig.parseDynamicConfig(members, 3, false, false);
    }
}
