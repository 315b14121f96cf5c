use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zk_proto::OpCode;

use crate::Failure;
use crate::load;
use crate::options::{Canned, Load, Sockets, Target};
use crate::report::Report;
use crate::requests::Mix;

const STAT: [u8; 68] = [0; 68];

/// Answers every request with a canned reply, on one thread, until it is killed.
pub(crate) fn serve(options: &Canned) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("event loop"))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind(&options.listen)
            .await
            .map_err(Failure::io(format!("cannot listen on {}", options.listen)))?;
        let address = listener.local_addr().map_err(Failure::io("listener"))?;
        println!("listening on {address}");
        std::io::stdout().flush().map_err(Failure::io("standard output"))?;
        let value_size = options.value_size as usize;
        loop {
            let (stream, _) = listener.accept().await.map_err(Failure::io("accept"))?;
            tokio::task::spawn_local(async move {
                answer(stream, value_size).await.ok(); // how a client ends is no matter
            });
        }
    })
}

fn int(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

async fn answer(mut stream: TcpStream, value_size: usize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = vec![0; 1 << 20];
    let mut out = Vec::with_capacity(1 << 18);
    let value = crate::requests::value(0, value_size);
    let mut stat = STAT;
    let length = i32::try_from(value_size).expect("at most 16 MB");
    stat[52..56].copy_from_slice(&length.to_be_bytes());
    let (mut filled, mut connected, mut zxid) = (0, false, 0i64);
    loop {
        let count = stream.read(&mut input[filled..]).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut at = 0;
        out.clear();
        while filled - at >= 4 {
            let length = int(&input, at) as usize;
            if filled - at - 4 < length {
                break;
            }
            let request = &input[at + 4..at + 4 + length];
            at += 4 + length;
            if !connected {
                connected = true;
                out.extend_from_slice(&37i32.to_be_bytes());
                out.extend_from_slice(&0i32.to_be_bytes());
                out.extend_from_slice(&30_000i32.to_be_bytes());
                out.extend_from_slice(&1i64.to_be_bytes());
                out.extend_from_slice(&16i32.to_be_bytes());
                out.extend_from_slice(&[7; 17]);
                continue;
            }
            zxid += 1;
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&request[..4]);
            out.extend_from_slice(&zxid.to_be_bytes());
            out.extend_from_slice(&[0; 4]);
            match OpCode(int(request, 4)) {
                OpCode::GET_DATA => {
                    let number = 12 + int(request, 8) as usize - 8;
                    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
                    out.extend_from_slice(&request[number..number + 8]);
                    out.extend_from_slice(&value[8..]);
                    out.extend_from_slice(&stat);
                }
                OpCode::SET_DATA => out.extend_from_slice(&stat),
                OpCode::CREATE => out.extend_from_slice(&request[8..12 + int(request, 8) as usize]),
                OpCode(_) => {}
            }
            let body = i32::try_from(out.len() - start - 4).expect("a reply is small");
            out[start..start + 4].copy_from_slice(&body.to_be_bytes());
        }
        input.copy_within(at..filled, 0);
        filled -= at;
        stream.write_all(&out).await?;
    }
}

/// The child that runs [`serve`]; killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok(); // it may be gone already
        self.0.wait().ok();
    }
}

/// Runs a workload against [`serve`] in a process of its own.
pub(crate) fn sockets(options: &Sockets, own: &[OsString]) -> Result<Report, Failure> {
    let mix = match options.workload.as_str() {
        "getData" => Mix::reads(100),
        "setData" => Mix::reads(0),
        "create" => Mix::Create,
        other => {
            return Err(Failure::new(format!("no workload {other}: getData, setData or create")));
        }
    };
    let mut child = Command::new(&own[0])
        .args(&own[1..])
        .arg("canned")
        .args(["--value-size", &options.shape.value_size.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map(Server)
        .map_err(Failure::io("starting the canned server"))?;
    let mut line = String::new();
    let stdout = child.0.stdout.take().expect("piped above");
    BufReader::new(stdout).read_line(&mut line).map_err(Failure::io("the canned server"))?;
    let server = line
        .trim()
        .strip_prefix("listening on ")
        .ok_or_else(|| Failure::new("the canned server did not start"))?
        .to_owned();
    let load = Load {
        target: Target { server, server_pid: vec![child.0.id()] },
        shape: options.shape.clone(),
        znodes: options.znodes,
        seconds: options.seconds,
        warmup: options.warmup,
    };
    load::run(&format!("sockets alone: {}", options.workload), mix, &load)
}
