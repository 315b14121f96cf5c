use super::*;
use crate::admin::testing::{connect, context, create, establish, watch};

fn metric(name: &'static str, value: Value) -> Metric {
    Metric { name, help: "Help.", value }
}

fn observed(values: &[u64]) -> Summary {
    let histogram = Histogram::default();
    values.iter().for_each(|value| histogram.record(*value));
    Summary::of_times(&histogram)
}

fn mntr(metrics: &[Metric]) -> String {
    let mut text = String::new();
    render_mntr(metrics, &mut text);
    text
}

#[test]
fn mntr_shows_every_kind() {
    let observations = observed(&[1000, 1000, 2500]);
    let metrics = [
        metric("a", Value::Gauge(-1)),
        metric("b", Value::FloatGauge(0.5)),
        metric("c", Value::FloatGauge(3.0)),
        metric("d", Value::Counter(u64::MAX)),
        metric("e", Value::GaugeSet(vec![("x/y\n".into(), 2)])),
        metric("f", Value::Sum(9)),
        metric("g", Value::Basic(observations)),
        metric("h", Value::Advanced(Box::default())),
    ];
    assert_eq!(
        mntr(&metrics),
        "zk_a\t-1\nzk_b\t0.5\nzk_c\t3.0\nzk_d\t18446744073709551615\nzk_x_y__e\t2\nzk_sum_f\t9\n\
         zk_avg_g\t1.5\nzk_min_g\t1\nzk_max_g\t2\nzk_cnt_g\t3\nzk_sum_g\t5\n\
         zk_avg_h\t0.0\nzk_min_h\t0\nzk_max_h\t0\nzk_cnt_h\t0\nzk_sum_h\t0\nzk_p50_h\t0\nzk_p95_h\t0\n\
         zk_p99_h\t0\nzk_p999_h\t0\n"
    );
}

#[test]
fn prometheus_shows_every_kind() {
    let text = render_families(&[
        metric("a", Value::Gauge(-1)),
        metric("b", Value::Counter(7)),
        metric("c", Value::GaugeSet(vec![("x\"y\\".into(), 2)])),
        metric("d", Value::Sum(9)),
        metric("e", Value::Basic(observed(&[500]))),
        metric("f", Value::Advanced(Box::default())),
    ]);
    let families = [
        "# HELP a Help.\n# TYPE a gauge\na -1\n",
        "# HELP b Help.\n# TYPE b counter\nb 7\n",
        "# HELP c Help.\n# TYPE c gauge\nc{key=\"x\\\"y\\\\\"} 2\n",
        "# HELP d Help.\n# TYPE d summary\nd_sum 9\n",
        "# HELP e Help.\n# TYPE e summary\ne{quantile=\"0.5\"} 0.5\ne_count 1\ne_sum 0.5\n",
        "# HELP f Help.\n# TYPE f summary\nf{quantile=\"0.5\"} NaN\nf{quantile=\"0.9\"} NaN\n\
         f{quantile=\"0.99\"} NaN\nf_count 0\nf_sum 0\n",
    ];
    for family in families {
        assert!(text.contains(family), "{family}in\n{text}");
    }
    assert_eq!(text.matches("# TYPE").count(), families.len());
}

#[test]
fn quantiles_and_means() {
    let values: Vec<u64> = (1..=1000).map(|ms| ms * 1000).collect();
    let summary = observed(&values);
    assert_eq!((summary.min_whole(), summary.max_whole(), summary.count), (1, 1000, 1000));
    assert!((summary.avg() - 500.5).abs() < 1e-9);
    for (q, exact) in [(0.5, 500.0), (0.95, 950.0), (0.999, 999.0)] {
        let got = summary.quantile(q);
        assert!(got >= exact && got <= exact * 1.25, "{q}: {got}");
    }
    // 2000 µs over 3 requests: upstream rounds to four digits.
    assert!((observed(&[0, 1000, 1000]).avg() - 0.6667).abs() < 1e-9);
}

#[test]
fn quotas_are_added_up_by_top_level_znode() {
    let mut sets = QuotaSets::default();
    sets.add("/a/b", [1, -1, 3, 4]);
    sets.add("/a/c", [10, -1, 30, 40]);
    sets.add("/b", [7, 7, 7, i64::MAX]);
    sets.add("/b/b", [0, 0, 0, 1]);
    let [counts, bytes, .., used] = &sets.0;
    assert_eq!((counts["a"], bytes["a"], used["a"]), (11, -2, 44));
    assert_eq!((counts["b"], used["b"]), (7, i64::MAX));
}

#[test]
fn what_happens_is_measured() {
    let context = context("");
    let client = connect(&context, "127.0.0.1:4000");
    establish(&context, &client);
    create(&context, &client, "/e", "12345", true);
    watch(&context, &client, "/e");
    context.counters.fsync.record(1500);
    context.counters.last_response_bytes.store(100, Ordering::Relaxed);
    let mntr = mntr(&collect(&context));
    let prometheus = render_prometheus(&context);
    for (key, value) in [
        ("znode_count", "6"),
        ("ephemerals_count", "1"),
        ("watch_count", "1"),
        ("num_alive_connections", "1"),
        ("global_sessions", "1"),
        ("commit_count", "2"),
        ("connection_request_count", "1"),
        ("packets_received", "3"),
        ("last_client_response_size", "100"),
        ("max_client_response_size", "-1"),
        ("looking_count", "0"),
        ("paddock_disk_low", "0"),
    ] {
        assert!(mntr.contains(&format!("zk_{key}\t{value}\n")), "{key} {value}\n{mntr}");
        assert!(prometheus.contains(&format!("\n{key} {value}\n")), "{key} {value}\n{prometheus}");
    }
    assert!(mntr.contains("zk_cnt_updatelatency\t1\n"), "{mntr}");
    assert!(mntr.contains("zk_sum_fsynctime\t2\n"), "{mntr}");
    assert!(mntr.contains("zk_cnt_election_time\t0\n"), "{mntr}");
    assert!(prometheus.contains("\nupdatelatency_count 1\n"), "{prometheus}");
    assert!(prometheus.contains("\nfsynctime{quantile=\"0.5\"} 1.5\nfsynctime_count 1\n"));
    assert!(prometheus.contains("\nelection_time_count 0\n"));
    assert!(prometheus.contains("# TYPE process_cpu_seconds_total counter\n"));
    assert!(prometheus.contains("\njvm_memory_bytes_used{area=\"heap\"} "));
}

/// What the text format demands, apart from the order of families.
#[test]
fn every_sample_belongs_to_one_family() {
    let text = render_prometheus(&context(""));
    let mut families = std::collections::BTreeMap::new();
    let mut current = "";
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name, kind).is_none(), "{name} twice");
            current = name;
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let rest = name.strip_prefix(current).unwrap_or_else(|| panic!("{line} in {current}"));
            let summary = families[current] == "summary";
            assert!(rest.is_empty() || (summary && ["_sum", "_count"].contains(&rest)), "{line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(families.len() > 120, "{}", families.len());
}

/// Names that upstream's alert rules and the dashboard most used read (ecosystem, section 5).
#[test]
fn dashboards_find_their_metrics() {
    let text = render_prometheus(&context(""));
    for name in [
        "znode_count",
        "num_alive_connections",
        "approximate_data_size",
        "watch_count",
        "election_time_count",
        "open_file_descriptor_count",
        "fsynctime_sum",
        "snapshottime_sum",
        "avg_latency",
        "jvm_memory_bytes_used{area=\"heap\"}",
        "jvm_memory_bytes_max{area=\"heap\"}",
        "jvm_pause_time_ms_sum",
        "outstanding_requests",
        "global_sessions",
        "local_sessions",
        "ephemerals_count",
        "bytes_received_count",
        "connection_drop_count",
        "connection_rejected",
        "connection_request_count",
        "commit_count",
        "snap_count",
        "diff_count",
        "proposal_count",
        "looking_count",
        "unrecoverable_error_count",
        "digest_mismatches_count",
        "node_created_watch_count_sum",
        "node_deleted_watch_count_sum",
        "node_changed_watch_count_sum",
        "node_children_watch_count_sum",
        "response_packet_cache_hits",
        "response_packet_cache_misses",
        "tls_handshake_exceeded",
        "ensemble_auth_success",
        "readlatency{quantile=\"0.99\"}",
        "updatelatency{quantile=\"0.9\"}",
        "quorum_ack_latency_count",
        "propagation_latency_count",
        "startup_txns_loaded_sum",
        "dbinittime_sum",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(text.contains(&format!("\n{name} ")), "{name}");
    }
}
