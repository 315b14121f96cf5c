import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;

/**
 * A distributed lock with a fencing token.
 * Lock HOSTS PATH NAME STORAGE
 */
public class Lock {
    /** Curator's mutex, with the token of who holds it. */
    static class FencedMutex extends InterProcessMutex {
        private final CuratorFramework client;

        FencedMutex(CuratorFramework client, String path) {
            super(client, path);
            this.client = client;
        }

        long token() throws Exception {
            return Common.token(client, getLockPath());
        }
    }

    public static void main(String[] args) throws Exception {
        String path = args[1], name = args[2];
        Common.Storage storage = new Common.Storage(args[3]);
        CuratorFramework client = Common.connect(args[0]);
        FencedMutex mutex = new FencedMutex(client, path);
        while (true) {
            try {
                mutex.acquire();
            } catch (Exception lost) {
                // The session expired while we stood in line.
                Thread.sleep(50);
                continue;
            }
            try {
                long token = mutex.token();
                if (token >= 0) {
                    Common.say(name, "locked", token);
                    try {
                        for (int i = 0; i < 4; i++) {
                            storage.write(token, name);
                            Thread.sleep(40);
                        }
                        Common.say(name, "unlocked", token);
                    } catch (Common.Stale stale) {
                        Common.say(name, "lost", token);
                    }
                }
            } finally {
                mutex.release();
            }
            Thread.sleep(20);
        }
    }
}
