import java.util.TreeSet;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.nodes.GroupMember;

/**
 * Membership of a group of workers: each knows who else is there.
 * Members HOSTS PATH NAME
 */
public class Members {
    public static void main(String[] args) throws Exception {
        String path = args[1], name = args[2];
        CuratorFramework client = Common.connect(args[0]);
        client.createContainers(path);
        GroupMember group = new GroupMember(client, path, name);
        group.start();
        String before = "";
        while (true) {
            String now = String.join(",", new TreeSet<>(group.getCurrentMembers().keySet()));
            if (!now.equals(before)) {
                Common.say(name, "sees", now);
                before = now;
            }
            Thread.sleep(50);
        }
    }
}
