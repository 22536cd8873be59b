//! The table on stdout, the figures in `target/bench.json`, and the chart in `target/bench.svg`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plotters::prelude::*;
use serde_json::{Value, json};

use crate::batches::Mix;
use crate::contender::Contender;
use crate::cost::Costs;
use crate::dataset::{SETTINGS, SIZES, Size};
use crate::overload::Load;
use crate::row::{ROWS, Row, Samples, quantile};

/// All figures.
pub(crate) struct Report {
    pub(crate) samples: Vec<Samples>,
    pub(crate) costs: Costs,
    pub(crate) load: Load,
    pub(crate) rounds: usize,
    pub(crate) took: Duration,
}

impl Row {
    /// The batches and the clients, without the dataset.
    pub(crate) fn requests(&self) -> String {
        let mix = match self.mix {
            Mix::Fresh => "fresh",
            Mix::Duplicates => "duplicates",
            Mix::HalfRefused => "half refused",
        };
        let clients =
            if self.clients == 1 { String::new() } else { format!(", {} clients", self.clients) };
        format!("{} {} {mix}{clients}", self.mapping.name(), self.details)
    }

    fn name(&self) -> String {
        format!("{}, {} links", self.requests(), size(self.dataset))
    }

    fn against_name(&self) -> String {
        match self.against {
            (Contender::Floor, _) => "floor".to_owned(),
            (Contender::Statement, _) => "its own statement".to_owned(),
            (Contender::Baseline, _) => "item by item".to_owned(),
            (Contender::Empty, _) => "an empty handler".to_owned(),
            (Contender::Endpoint, dataset) => format!("endpoint, {} links", size(dataset)),
        }
    }

    pub(crate) fn unit(&self) -> &'static str {
        if self.clients == 1 { "ms" } else { "batches/s" }
    }

    fn is_met(&self, ratio: f64) -> Option<bool> {
        self.goal.map(|goal| if self.clients == 1 { ratio <= goal } else { ratio >= goal })
    }
}

fn size(dataset: usize) -> String {
    let Size { links, is_analyzed } = SIZES[dataset];
    let number = if links >= 1_000_000 {
        format!("{}M", links / 1_000_000)
    } else {
        format!("{}k", links / 1_000)
    };
    if is_analyzed { number } else { format!("{number} never analysed") }
}

impl Report {
    pub(crate) fn publish(&self) {
        println!("{}", self.table());
        let target = Path::new("target");
        fs::create_dir_all(target).unwrap();
        fs::write(target.join("bench.json"), serde_json::to_string_pretty(&self.json()).unwrap())
            .unwrap();
        fs::write(target.join("bench.svg"), self.chart()).unwrap();
        println!("\nThe figures are in target/bench.json, the chart is in target/bench.svg.");
    }

    fn rows(&self) -> impl Iterator<Item = (&Row, &Samples)> {
        ROWS.iter().zip(&self.samples)
    }

    fn table(&self) -> String {
        let mut lines = vec![
            "\n| batches | endpoint | compared with | | ratio | goal |".to_owned(),
            "|---|---:|---|---:|---:|---|".to_owned(),
        ];
        for (row, samples) in self.rows() {
            let (endpoint, against) =
                (quantile(&samples.endpoint, 0.5), quantile(&samples.against, 0.5));
            let ratio = endpoint / against;
            let goal = match (row.goal, row.is_met(ratio)) {
                (Some(goal), Some(is_met)) => {
                    let bound = if row.clients == 1 { "≤" } else { "≥" };
                    format!("{bound} {goal} {}", if is_met { "met" } else { "**missed**" })
                }
                _ => String::new(),
            };
            let digits = if row.clients == 1 { 2 } else { 0 };
            let unit = row.unit();
            let (name, against_name) = (row.name(), row.against_name());
            lines.push(format!(
                "| {name} | {endpoint:.digits$} {unit} | {against_name} | {against:.digits$} {unit} | {ratio:.2} | {goal} |"
            ));
        }
        let Load {
            half_clients,
            half_p99,
            half_rate,
            over_clients,
            over_p99,
            over_rate,
            refused,
            refused_p99,
            after_rate,
        } = &self.load;
        lines.push(format!("\n{}", serde_json::to_string_pretty(&self.costs).unwrap()));
        lines.push(format!(
            "\n{half_clients} clients: {half_rate:.0} batches/s, p99 {half_p99:.0} ms. \
             {over_clients} clients: {over_rate:.0} batches/s, p99 of the admitted \
             {over_p99:.0} ms ({:.2} ×), {refused} refused, p99 of their answers \
             {refused_p99:.1} ms. {half_clients} clients right after: {after_rate:.0} batches/s.",
            over_p99 / half_p99
        ));
        lines.push(format!("\n{} rounds, {} s in all", self.rounds, self.took.as_secs()));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let rows: Vec<_> = self
            .rows()
            .map(|(row, samples)| {
                let (endpoint, against) =
                    (quantile(&samples.endpoint, 0.5), quantile(&samples.against, 0.5));
                json!({
                    "batches": row.name(), "unit": row.unit(), "endpoint": endpoint,
                    "endpoint_p99": quantile(&samples.endpoint, 0.99),
                    "against": row.against_name(), "against_value": against,
                    "ratio": endpoint / against, "ratios_by_round": samples.ratios,
                    "goal": row.goal, "met": row.is_met(endpoint / against),
                })
            })
            .collect();
        let settings: serde_json::Map<_, _> =
            SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "rows": rows, "costs": self.costs, "overload": self.load, "rounds": self.rounds,
            "seconds": self.took.as_secs(), "postgres": settings,
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
        })
    }

    /// A bar chart of the rows with one client: the endpoint and the floor.
    fn chart(&self) -> String {
        const ENDPOINT: RGBColor = RGBColor(0x1f, 0x6f, 0xb2);
        const FLOOR: RGBColor = RGBColor(0xb8, 0xb8, 0xb8);
        const CAPTION: &str = "Median of a batch, in ms: the endpoint (blue) and a bare insert of the same pairs (grey)";
        let rows: Vec<_> = self
            .rows()
            .filter(|(row, _)| row.clients == 1 && row.against.0 == Contender::Floor)
            .collect();
        let highest =
            rows.iter().map(|(_, samples)| quantile(&samples.endpoint, 0.5)).fold(0.0, f64::max);
        let mut svg = String::new();
        {
            let height = 90 + 44 * u32::try_from(rows.len()).unwrap();
            let area = SVGBackend::with_string(&mut svg, (860, height)).into_drawing_area();
            area.fill(&WHITE).unwrap();
            let count = f64::from(u32::try_from(rows.len()).unwrap());
            let mut chart = ChartBuilder::on(&area)
                .caption(CAPTION, ("sans-serif", 15))
                .margin(12)
                .x_label_area_size(24)
                .y_label_area_size(210)
                .build_cartesian_2d(0.0..highest * 1.15, 0.0..count)
                .unwrap();
            chart
                .configure_mesh()
                .disable_y_mesh()
                .disable_y_axis()
                .light_line_style(TRANSPARENT)
                .draw()
                .unwrap();
            for (index, (row, samples)) in rows.iter().enumerate() {
                let top = count - f64::from(u32::try_from(index).unwrap());
                for (values, color, y) in [
                    (&samples.endpoint, ENDPOINT, top - 0.48),
                    (&samples.against, FLOOR, top - 0.86),
                ] {
                    let value = quantile(values, 0.5);
                    chart
                        .draw_series([Rectangle::new(
                            [(0.0, y), (value, y + 0.36)],
                            color.filled(),
                        )])
                        .unwrap();
                    let style = ("sans-serif", 12).into_font();
                    let label =
                        Text::new(format!("{value:.2}"), (value + highest * 0.01, y + 0.3), style);
                    chart.draw_series([label]).unwrap();
                }
                let (x, y) = chart.backend_coord(&(0.0, top - 0.3));
                let name = Text::new(row.name(), (x - 205, y - 4), ("sans-serif", 13).into_font());
                area.draw(&name).unwrap();
            }
            area.present().unwrap();
        }
        svg
    }
}
