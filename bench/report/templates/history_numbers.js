"use strict";
// The numbers of a history's page: unpacked series, differences with intervals, and their words.
const historyNumbers = async packed => {
  const VERDICTS = {P: "PASS", F: "FAIL", I: "INCONCLUSIVE", N: "NOT THERE"};
  const PACKAGES = ["TensorFlow", "Keras", "NumPy", "Python"];

  // The data: deflated JSON; columns of whole numbers, decoded when a series is drawn.
  const inflate = async text => {
    const bytes = Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  const sums = deltas => { let total = 0; return deltas.map(each => total += each); };
  const column = ([middle, ...rest], unit) =>
    rest.map(each => each === null ? NaN : (middle + each) / unit);
  const once = make => { const made = new Map(); return key => {
    if (!made.has(key)) made.set(key, make(key));
    return made.get(key);
  }; };

  const data = await inflate(packed);
  const seconds = sums(data.runs.seconds);
  const all = [...data.series, ...data.versions];
  const numbers = new Map(all.map((series, number) => [series.name, number]));

  const pointsOf = once(number => {
    const series = all[number];
    if (series.members) {
      const places = sums(series.points);
      return sums(series.members).map((member, at) => pointsOf(member)[places[at]]);
    }
    const environments = sums(series.environments), values = column(series.values, data.value);
    const errors = column(series.errors, data.value), amounts = column(series.amounts, data.amount);
    return sums(series.runs).map((run, at) => ({
      run, environment: environments[at], value: values[at], error: errors[at], blocks: series.blocks[at],
      verdict: VERDICTS[series.verdicts[at]], amount: Math.exp(amounts[at]), series: number,
      link: series.links ? series.links[at] / data.value : 0,
    }));
  });
  const packagesOf = once(number => {
    const {parent, changes} = data.environments[number];
    const packages = new Map(parent < 0 ? [] : packagesOf(parent));
    for (const [name, version] of Object.entries(changes))
      version === null ? packages.delete(name) : packages.set(name, version);
    return packages;
  });

  // Words and numbers.
  const day = run => new Date(1000 * seconds[run]).toISOString().slice(0, 10);
  const span = (from, to) => day(from) === day(to)
    ? `${moment(from).slice(0, -4)} to ${moment(to).slice(11)}` : `${day(from)} to ${day(to)}`;
  const moment = run => new Date(1000 * seconds[run]).toISOString().slice(0, 16).replace("T", " ") + " UTC";
  const signed = (value, digits) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);
  const level = (series, value) => !isFinite(value) ? "no value"
    : series.difference ? `${signed(value, 3)} ${series.unit}` : Math.exp(value).toFixed(3);
  const change = (series, value) => series.difference ? `${signed(value, 3)} ${series.unit}`
    : `${signed(100 * Math.expm1(value), 2)} %`;
  const between = (series, shown, low, high) => `${shown(series, low)} to ${shown(series, high)}`;
  const amount = (series, value) => !isFinite(value) ? "no value" : series.unit === "s"
    ? value >= 1 ? `${value.toFixed(2)} s` : value >= 1e-3 ? `${(1e3 * value).toFixed(2)} ms`
    : `${(1e6 * value).toFixed(1)} \u00b5s` : `${value.toFixed(1)} ${series.unit}`;
  // Student's t for 97.5 % (Abramowitz and Stegun 26.7.5; exact below five degrees of freedom).
  const student = freedom => {
    const exact = [NaN, 12.7062, 4.3027, 3.1824, 2.7764], z = 1.959964, n = Math.floor(freedom);
    if (n < exact.length) return exact[n] ?? NaN;
    return z + (z ** 3 + z) / (4 * n) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * n ** 2)
      + (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * n ** 3);
  };
  const half = point => student(point.blocks - 1) * point.error;
  // Difference of two points with its 95 % interval, degrees of freedom by Welch (1947).
  const difference = (later, earlier) => {
    const [a, b] = [later.error ** 2, earlier.error ** 2];
    const isChained = data.runs.baselines[later.run] !== data.runs.baselines[earlier.run];
    const chain = isChained ? later.link ** 2 + earlier.link ** 2 : 0;
    const freedom = a + b > 0
      ? (a + b) ** 2 / (a ** 2 / (later.blocks - 1) + b ** 2 / (earlier.blocks - 1)) : Infinity;
    const width = student(Math.min(freedom, 1e6)) * Math.sqrt(a + b + chain);
    const value = later.value - earlier.value;
    return {value, low: value - width, high: value + width};
  };
  const changed = (series, later, earlier) => {
    const {value, low, high} = difference(later, earlier);
    if (!isFinite(value)) return "not known: a point has no value";
    return change(series, value)
      + (isFinite(low) ? ` (95 % interval ${between(series, change, low, high)})` : " (no interval: below two blocks)");
  };
  const quoted = text => /^[\w./:=,+<>~-]+$/.test(text) && !/[<>~]/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
  const command = (series, point) => {
    const request = number => quoted(data.environments[number].repeat);
    const asked = series.asked.replace("{baseline}", () => request(data.runs.baselines[point.run]))
      .replace("{candidate}", () => request(point.environment));
    return `python -m pytest bench ${asked}`;
  };
  const lockChanges = (later, earlier) => {
    const [now, before] = [packagesOf(later), packagesOf(earlier)];
    return [...new Set([...before.keys(), ...now.keys()])].sort()
      .filter(name => now.get(name) !== before.get(name))
      .map(name => `${name} ${before.get(name) ?? "absent"} \u2192 ${now.get(name) ?? "absent"}`);
  };
  const listed = (changes, same) => changes.length ? changes.join(", ") : same;
  const flags = machine => new Set(data.machines[machine].flags.split(" ").filter(Boolean));
  const machineChanges = (later, earlier) => {
    const [now, before] = [data.machines[later], data.machines[earlier]];
    const told = Object.keys({...before, ...now}).filter(key => key !== "flags" && now[key] !== before[key])
      .map(key => `${key} ${before[key] ?? "unknown"} \u2192 ${now[key] ?? "unknown"}`);
    const [has, had] = [flags(later), flags(earlier)];
    const moved = [...[...has].filter(flag => !had.has(flag)).map(flag => `+${flag}`),
      ...[...had].filter(flag => !has.has(flag)).map(flag => `\u2212${flag}`)];
    return moved.length ? [...told, `flags ${moved.join(" ")}`] : told;
  };
  // What changed from one point to the next, by kind.
  const changesOf = (later, earlier) => {
    const [now, before] = [data.environments[later.environment], data.environments[earlier.environment]];
    const found = {};
    PACKAGES.forEach((name, at) => {
      if (now.versions[at] !== before.versions[at])
        found[name] = `${name} ${before.versions[at] || "unknown"} \u2192 ${now.versions[at] || "unknown"}`;
    });
    const runs = data.runs, [a, b] = [earlier.run, later.run];
    if (runs.machines[a] !== runs.machines[b]) {
      const told = machineChanges(runs.machines[b], runs.machines[a]);
      const ofGpu = told.filter(each => each.startsWith("GPU ")), rest = told.filter(each => !ofGpu.includes(each));
      if (rest.length) found.CPU = `CPU: ${rest.join(", ")}`;
      if (ofGpu.length) found.GPU = ofGpu.join(", ");
    }
    if (runs.codes[a] !== runs.codes[b])
      found.method = `method: code ${data.codes[runs.codes[a]]} \u2192 ${data.codes[runs.codes[b]]}`;
    if (runs.baselines[a] !== runs.baselines[b])
      found.baseline = `baseline ${data.environments[runs.baselines[a]].label} \u2192 ${data.environments[runs.baselines[b]].label}`;
    return found;
  };

  // Changes besides packages, in words.
  const otherChanges = (later, earlier) => Object.entries(changesOf(later, earlier))
    .filter(([kind]) => !PACKAGES.includes(kind)).map(([, told]) => told).join("; ") || "none";

  return {data, all, numbers, pointsOf, day, moment, span, level, change, between, amount, half, difference, changed,
    command, lockChanges, listed, changesOf, otherChanges};
};
