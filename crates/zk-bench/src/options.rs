use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "paddock bench",
    about = "Measures a server that speaks ZooKeeper's client protocol",
    disable_version_flag = true
)]
pub(crate) struct Cli {
    /// One JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read the data of random znodes
    #[command(name = "getData", alias = "getdata", alias = "get")]
    GetData(Load),
    /// Replace the data of random znodes
    #[command(name = "setData", alias = "setdata", alias = "set")]
    SetData(Load),
    /// Create persistent znodes (they stay, below /bench/create)
    Create(Load),
    /// Reads and writes of random znodes
    Mixed(Mixed),
    /// Create many znodes as fast as the server takes them
    Fill(Fill),
    /// Hold many idle sessions
    Idle(Idle),
    /// Time to connect and to get a session, one after the other
    ConnectTime(ConnectTime),
    /// The floor: a workload against canned replies, no server at all
    Sockets(Sockets),
    /// The server of `sockets`: answers every request with a canned reply
    Canned(Canned),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// The server's address; several, with commas between them, share the connections
    #[arg(long, short, default_value = "127.0.0.1:2181", value_name = "HOST:PORT,...")]
    pub(crate) server: String,
    /// The server's process: measures its CPU time and memory; those of several are summed up
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pub(crate) server_pid: Vec<u32>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    /// Connections, each with a session of its own
    #[arg(long, short, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) connections: u32,
    /// Requests in flight on each connection
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) outstanding: u32,
    /// Bytes of data of each znode (at least 8: data starts with the znode's number)
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=16_000_000))]
    pub(crate) value_size: u32,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// How many znodes to read and write
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) znodes: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Seconds of the same load before
    #[arg(long, default_value_t = 3.0)]
    pub(crate) warmup: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Mixed {
    #[command(flatten)]
    pub(crate) load: Load,
    /// How many of 100 operations read
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) read_percent: u8,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Fill {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// How many znodes to create
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) znodes: u32,
    /// Znodes below one parent
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) fanout: u32,
    /// Where; created if missing
    #[arg(long, default_value = "/fill")]
    pub(crate) root: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many sessions
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) sessions: u32,
    /// Loopback addresses to connect from, each with its own ports (127.0.0.1, 127.0.0.2, ...)
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) sources: u32,
    /// Session timeout to ask for, in seconds; a ping is sent every third of it
    #[arg(long, default_value_t = 30.0)]
    pub(crate) timeout: f64,
    /// Seconds to hold the sessions once they are connected
    #[arg(long, default_value_t = 15.0)]
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectTime {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many sessions to open and close
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Sockets {
    /// The workload: getData, setData, create
    #[arg(long, default_value = "getData")]
    pub(crate) workload: String,
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// How many znodes to read and write
    #[arg(long, default_value_t = 1000)]
    pub(crate) znodes: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Seconds of the same load before
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Canned {
    /// Where to listen; port 0 picks one. The address is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: String,
    /// Bytes of data in every znode
    #[arg(long, default_value_t = 100)]
    pub(crate) value_size: u32,
}
