package paddock.conformance;

import java.io.IOException;
import java.util.Collection;
import java.util.Properties;
import javax.security.sasl.SaslException;
import org.apache.zookeeper.server.ZooKeeperServer;
import org.apache.zookeeper.server.quorum.MultipleAddresses;
import org.apache.zookeeper.server.quorum.QuorumPeer;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig;
import org.apache.zookeeper.server.quorum.flexible.QuorumVerifier;

/** What {@link ExternalPeer} overrides in releases from 3.6 on, where a server has several addresses. */
abstract class ReleasePeer extends QuorumPeer {

    ReleasePeer() throws SaslException {
    }

    /** Its line in the configuration. */
    abstract QuorumServer itself();

    @Override
    public MultipleAddresses getQuorumAddress() {
        return itself().addr;
    }

    @Override
    public MultipleAddresses getElectionAddress() {
        return itself().electionAddr;
    }

    /** Where a member listens for learners. */
    static Collection<Integer> quorumPorts(QuorumServer member) {
        return member.addr.getAllPorts();
    }

    /** What the tests have set in static fields. */
    public static boolean closesSessionsByTxn() {
        return ZooKeeperServer.isCloseSessionTxnEnabled();
    }

    public static boolean checksAclsEagerly() {
        return ZooKeeperServer.isEnableEagerACLCheck();
    }

    static QuorumVerifier parse(Properties members) throws IOException, QuorumPeerConfig.ConfigException {
        return QuorumPeerConfig.parseDynamicConfig(members, 3, false, false, null);
    }
}
