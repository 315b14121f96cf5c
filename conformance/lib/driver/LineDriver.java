import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;

/**
 * A system's own client, asked line by line on standard input; each line is answered by one that begins with {@code ok} or
 * {@code error}.
 */
@FunctionalInterface
interface LineDriver {

    String answer(String[] words) throws Exception;

    /** Answers until the input ends. */
    static void serve(LineDriver driver) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String answer;
            try {
                answer = "ok " + driver.answer(line.split(" "));
            } catch (Exception e) {
                answer = "error " + e;
            }
            System.out.println(answer.replace('\n', ' '));
            System.out.flush();
        }
    }
}
