//! `org.apache.zookeeper.data`: what is known about a znode.

use zk_jute::records;

records! {
    /// What a client is told about a znode (facts, section 1.6).
    Stat {
        czxid: i64, mzxid: i64, ctime: i64, mtime: i64, version: i32, cversion: i32, aversion: i32,
        ephemeral_owner: i64, data_length: i32, num_children: i32, pzxid: i64,
    }
    /// What a server keeps about a znode: `cversion` counts creates only.
    #[derive(Copy, Default)]
    StatPersisted {
        czxid: i64, mzxid: i64, ctime: i64, mtime: i64, version: i32, cversion: i32, aversion: i32,
        ephemeral_owner: i64, pzxid: i64,
    }
    /// One authentication of a connection.
    ClientInfo { auth_scheme: String, user: String }
}
