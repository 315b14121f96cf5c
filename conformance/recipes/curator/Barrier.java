import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;

/**
 * A double barrier: nobody starts before all have come, nobody goes on before all have finished. Round after round.
 * Barrier HOSTS PATH NAME SIZE ROUND
 */
public class Barrier {
    public static void main(String[] args) throws Exception {
        String path = args[1], name = args[2];
        int size = Integer.parseInt(args[3]);
        CuratorFramework client = Common.connect(args[0]);
        for (int round = Integer.parseInt(args[4]); ; round++) {
            // A node of its own for each round: who is slow to leave one never meets who is quick to enter the next.
            DistributedDoubleBarrier barrier = new DistributedDoubleBarrier(client, String.format("%s/%010d", path, round), size);
            Common.say(name, "arrives", round);
            barrier.enter();
            Common.say(name, "enters", round);
            Thread.sleep(100);
            Common.say(name, "leaves", round);
            try {
                barrier.leave();
                Common.say(name, "left", round);
            } catch (IllegalStateException expired) {
                // Our session expired: to the others we are gone.
                Common.say(name, "expelled", round);
            }
        }
    }
}
