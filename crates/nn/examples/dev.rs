use wsd_nn::{
    Cpu, CpuOptions, Format,
    kernels::Simd,
    measure,
    shapes::{Recipe, Shape},
};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let shape = Shape::find(&a[1]).unwrap();
    let f = Format::parse(&a[2]).unwrap();
    let threads: usize = a[3].parse().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let t = std::time::Instant::now();
        let c = shape.model(f, Recipe { seed: 1, agreement: 1.0 }).unwrap();
        println!("made {:.1}s {} MB", t.elapsed().as_secs_f64(), c.weights.total_bytes() >> 20);
        let t = std::time::Instant::now();
        let exact = a.get(4).is_some_and(|x| x == "exact");
        let mut cpu = Cpu::load_with(&c, CpuOptions { exact, simd: Simd::detect(), dtype: None }).unwrap();
        println!("loaded {:.2}s", t.elapsed().as_secs_f64());
        let bw = measure::read_bandwidth(1 << 30);
        let bytes = c.weights.total_bytes() as f64; // embedding not read
        for _ in 0..3 {
            let d = measure::decode(&mut cpu, 128, 16).unwrap();
            let s: Vec<f64> = [2, 4, 8, 16].iter().map(|n| measure::score(&mut cpu, 128, *n).unwrap() * 1e3).collect();
            let p = [128, 512].map(|n| n as f64 / measure::prefill(&mut cpu, n).unwrap());
            println!(
                "decode {:.1}ms {:.1}tok/s {:.1}GB/s (bw {:.1}) score {:?} prefill {:.0} {:.0}",
                d * 1e3,
                1.0 / d,
                bytes / d / 1e9,
                bw / 1e9,
                s.iter().map(|x| (x * 10.0).round() / 10.0).collect::<Vec<_>>(),
                p[0],
                p[1]
            );
        }
    });
}
