//! Medians of ratios, and the table.

use std::fmt::Write;

use crate::subject::Subject;

/// What the rounds gave for one subject.
#[derive(Default)]
pub struct Figures {
    /// CPU µs per request at the fixed rate.
    pub cpu_us: Vec<f64>,
    /// CPU µs per request flat out.
    pub flat_out_cpu_us: Vec<f64>,
    /// Requests per second flat out.
    pub per_second: Vec<f64>,
}

/// The results as Markdown; the first subject is the control.
pub fn table(subjects: &[Subject], figures: &[Figures], rounds: usize, rate: u32) -> String {
    let mut text = format!(
        "One run, {rounds} rounds, subject pinned to one core, 32 HTTP/1.1 keep-alive connections. \
         Medians; ratios are medians of the ratios within a round (lowest–highest).\n\n\
         | subject | CPU µs per request at {rate}/s | ratio to nginx | flat out: CPU µs | ratio | requests/s | ratio |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    let Some(control) = figures.first() else { return text };
    for (subject, own) in subjects.iter().zip(figures) {
        let _infallible = writeln!(
            text,
            "| {} | {:.1} | {} | {:.1} | {} | {:.0} | {} |",
            subject.name,
            median(own.cpu_us.clone()),
            ratio(&own.cpu_us, &control.cpu_us),
            median(own.flat_out_cpu_us.clone()),
            ratio(&own.flat_out_cpu_us, &control.flat_out_cpu_us),
            median(own.per_second.clone()),
            ratio(&own.per_second, &control.per_second),
        );
    }
    let spread = spread(&control.cpu_us);
    let _infallible = writeln!(text, "\nSpread of the control: {:.1} %.", spread * 100.0);
    if spread > 0.10 {
        text.push_str("The control spreads more than 10 %: this run is unreadable.\n");
    }
    text
}

fn ratio(own: &[f64], control: &[f64]) -> String {
    let ratios: Vec<f64> = own.iter().zip(control).map(|(a, b)| a / b).collect();
    let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let high = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({low:.2}–{high:.2})", median(ratios))
}

fn spread(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    (high - low) / median(values.to_vec())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
    }
}
