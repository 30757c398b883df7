use super::*;

fn lines() -> Lines {
    let curve = |shift: f64| (0..=20).map(move |i| (f64::from(i) * 50.0, 3.0 * (-f64::from(i) / 6.0).exp() + shift));
    let mut train = Series::new("train", curve(0.5));
    train.band = curve(0.5).map(|(x, y)| (x, y - 0.2, y + 0.2)).collect();
    let mut points: Vec<_> = curve(0.8).collect();
    points[9].1 = f64::NAN;
    Lines {
        title: "Loss <by step>".into(),
        x_label: "step".into(),
        y_label: "nats per token".into(),
        series: vec![train, Series::new("evaluation", points)],
        rules: vec![(0.5, "floor".into())],
    }
}

fn bars(named: bool) -> Bars {
    let bar = |name: &str, value: Option<f64>, color| Bar {
        name: name.into(),
        value,
        interval: value.map(|value| (value - 6.0, value + 4.0)),
        color,
    };
    let bars = vec![bar("base", Some(12.0), 0), bar("pilot", Some(88.5), 1), bar("tuned base", None, 2)];
    Bars { title: "helpful, %".into(), bars, named, most: 100.0, decimals: 1 }
}

fn heat() -> HeatMap {
    let cells = (0..3)
        .map(|row| (0..4).map(move |column| (row != column).then_some(f64::from(row * 4 + column))))
        .map(Iterator::collect);
    HeatMap {
        title: "HHH, %".into(),
        x_label: "threshold".into(),
        y_label: "window".into(),
        columns: ["0.5", "0.6", "0.7", "0.8"].map(String::from).to_vec(),
        rows: ["1", "2", "3"].map(String::from).to_vec(),
        cells: cells.collect(),
        range: None,
        decimals: 0,
        mark: Some((2, 3)),
    }
}

fn page() -> Page {
    Page {
        title: "All panels".into(),
        note: "made up".into(),
        columns: 2,
        panels: vec![lines().into(), heat().into(), bars(true).into(), bars(false).into()],
    }
}

#[test]
fn a_page_of_every_panel() {
    let svg = page().svg();
    if let Some(path) = std::env::var_os("WSD_PLOT_OUT") {
        fs_err::write(path, &svg).unwrap();
    }
    insta::assert_snapshot!(svg);
}

#[test]
fn text_is_escaped() {
    let title = "<&\"> \u{1b}".to_owned();
    let svg = Page { title, columns: 1, ..Page::default() }.svg();
    assert!(svg.contains("&lt;&amp;&quot;&gt; \u{FFFD}"));
}

#[test]
fn long_curves_are_thinned_between_their_ends() {
    let points = (0..10_000).map(|i| (f64::from(i), f64::from(i % 7)));
    let svg = Page {
        columns: 1,
        panels: vec![Lines { series: vec![Series::new("", points)], ..Lines::default() }.into()],
        ..Page::default()
    }
    .svg();
    assert!(svg.len() < 12_000, "{} bytes", svg.len());
}
