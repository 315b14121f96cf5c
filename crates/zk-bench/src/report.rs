use serde_json::{Map, Value, json};

use crate::histogram::Histogram;
use crate::process::{CpuTime, Memory};

/// Figures with stable keys for `--json`, and lines for people.
#[derive(Debug, Default)]
pub(crate) struct Report {
    values: Map<String, Value>,
    lines: Vec<String>,
}

impl Report {
    pub(crate) fn value(&mut self, key: &str, value: impl Into<Value>) {
        self.values.insert(key.to_owned(), value.into());
    }

    pub(crate) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Quantiles in us, under `key`.
    pub(crate) fn latency(&mut self, key: &str, label: &str, histogram: &Histogram) {
        let us = |ns: u64| (ns as f64 / 100.0).round() / 10.0;
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
        let mut values = Map::new();
        let mut text = String::new();
        for (name, quantile) in quantiles {
            let value = us(histogram.quantile(quantile));
            values.insert(name.to_owned(), json!(value));
            text.push_str(&format!("{name} {value}  "));
        }
        let mean = (histogram.mean() / 100.0).round() / 10.0;
        values.insert("max".to_owned(), json!(us(histogram.max())));
        values.insert("mean".to_owned(), json!(mean));
        self.value(key, Value::Object(values));
        self.line(format!("  {label:<10} {text}max {}  mean {mean} us", us(histogram.max())));
    }

    /// CPU time for each of `ops`.
    pub(crate) fn cpu(&mut self, who: &str, cpu: CpuTime, ops: u64) {
        let each = |seconds: f64| (seconds * 1e6 / ops.max(1) as f64 * 1000.0).round() / 1000.0;
        let (total, user, system) = (each(cpu.total()), each(cpu.user), each(cpu.system));
        self.value(
            &format!("{who}_cpu_us_per_op"),
            json!({"total": total, "user": user, "system": system}),
        );
        self.line(format!(
            "  {who:<10} {total:.2} us CPU/op ({user:.2} user + {system:.2} system)"
        ));
    }

    pub(crate) fn memory(&mut self, memory: Memory) {
        self.value("server_rss_bytes", memory.rss);
        self.value("server_peak_rss_bytes", memory.peak);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        self.line(format!(
            "  {:<10} RSS {:.1} MiB, peak {:.1} MiB",
            "server",
            mib(memory.rss),
            mib(memory.peak)
        ));
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            println!("{}", Value::Object(self.values.clone()));
        } else {
            for line in &self.lines {
                println!("{line}");
            }
        }
    }
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
