// The page: sliders, numbers, marks and the map.

const COLOURS = { optimum: "#0072b2", unconstrained: "#56b4e9", uniform: "#000000", rival: "#d55e00", yours: "#cc79a7" };
const SYMBOLS = { optimum: "star", unconstrained: "star-open", uniform: "x", rival: "diamond", yours: "circle-open" };
const STEPS = 28; // along a side of the map

const bytes = (id) => Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
const unpacked = (id) => new Response(new Blob([bytes(id)]).stream().pipeThrough(new DecompressionStream("gzip")));
const element = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

// A number for people to three digits, such as "1.8M".
function short(count) {
  const rounded = Number(count.toPrecision(3));
  const [unit, letter] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]].find(([u]) => rounded >= u) ?? [1, ""];
  return `${Number((rounded / unit).toPrecision(3))}${letter}`;
}
const share = (x) => `${(100 * x).toFixed(1)} %`;
const signed = (x) => `${x >= 0 ? "+" : "−"}${Math.abs(100 * x).toFixed(1)} %`;
const number = (x) => x.toFixed(4);

class Page {
  constructor(content, law) {
    Object.assign(this, content, { law, goal: new Objective(content.objective) });
    this.uniform = this.marks[0].weights;
    this.shares = [...(this.marks.find((mark) => mark.kind === "optimum") ?? this.marks[0]).weights];
    this.locked = this.shares.map(() => false);
    this.add_scale("budget", this.budgets, this.budget, (at) => (this.budget = at));
    if (this.sizes.length) this.add_scale("size", this.sizes, this.size, (at) => (this.size = at));
    this.add_sliders();
    this.add_marks();
    this.add_axes();
    this.show();
    this.draw();
  }

  add_scale(id, stops, value, set) {
    const input = make("input", { type: "range", id, min: 0, max: stops.length - 1, step: 1, value: stops.indexOf(value) });
    input.addEventListener("input", () => { set(stops[input.value]); this.show(); });
    input.addEventListener("change", () => this.draw());
    element(`${id}-place`).append(input);
    element(`${id}-row`).hidden = false;
  }

  add_sliders() {
    this.rows = this.law.domains.map((domain, k) => {
      const slider = make("input", { type: "range", min: 0, max: 1, step: "any", id: `share-${k}`, ariaLabel: domain });
      const typed = make("input", { type: "number", min: 0, max: 100, step: 0.1, ariaLabel: `${domain}, percent` });
      const lock = make("input", { type: "checkbox", id: `lock-${k}`, ariaLabel: `lock ${domain}` });
      const tokens = make("span", { className: "tokens" });
      slider.addEventListener("input", () => this.move(k, slider.valueAsNumber));
      typed.addEventListener("change", () => this.move(k, typed.valueAsNumber / 100));
      for (const input of [slider, typed]) input.addEventListener("change", () => this.draw());
      lock.addEventListener("change", () => (this.locked[k] = lock.checked));
      const name = make("label", { htmlFor: `share-${k}`, className: "name", textContent: domain });
      const held = make("label", { className: "lock" }, lock, " lock");
      element("sliders").append(make("div", { className: "slider" }, name, slider, make("span", {}, typed, " %"), held, tokens));
      return { slider, typed, tokens };
    });
  }

  add_marks() {
    for (const mark of this.marks) {
      const button = make("button", { type: "button", textContent: mark.name });
      button.style.borderColor = COLOURS[mark.kind];
      button.addEventListener("click", () => { this.shares = [...mark.weights]; this.show(); this.draw(); });
      element("marks").append(button);
    }
  }

  add_axes() {
    const [x, y] = [element("x-axis"), element("y-axis")];
    this.law.domains.forEach((domain, k) => [x, y].forEach((axis) => axis.append(make("option", { value: k, textContent: domain }))));
    y.value = 1;
    if (this.law.count === 1) element("shown").options[1].remove(); // without draws there are no intervals
    for (const choice of [x, y, element("shown")]) choice.addEventListener("change", () => this.draw());
  }

  move(k, wanted) {
    this.shares = rebalanced(this.shares, this.locked, k, Number.isFinite(wanted) ? wanted : this.shares[k]);
    this.show();
  }

  // The losses, objective and gain over uniform of shares, at the chosen budget and size.
  expected(shares) {
    const losses = this.law.losses(shares.map((s) => s * this.budget), this.size);
    return { losses, values: this.goal.values(this.law, losses) };
  }

  gains(values, of_uniform) {
    return values.map((value, d) => of_uniform[d] - value);
  }

  show() {
    element("budget-shown").textContent = short(this.budget);
    if (this.sizes.length) element("size-shown").textContent = short(this.size);
    this.rows.forEach(({ slider, typed, tokens }, k) => {
      slider.value = this.shares[k];
      typed.value = (100 * this.shares[k]).toFixed(1);
      const used = this.shares[k] * this.budget, text = this.law.unique_tokens?.[k];
      tokens.textContent = `${short(used)} tokens${text ? `, ${Number((used / text).toPrecision(2))} epochs` : ""}`;
    });
    const { losses, values } = this.expected(this.shares);
    const of_uniform = this.expected(this.uniform).values;
    const objective = summary(values), gain = summary(this.gains(values, of_uniform));
    const level = summary(of_uniform).median;
    const text = (of, form) => (of.interval ? `${form(of.interval[0])} to ${form(of.interval[1])}` : "");
    element("objective").textContent = number(objective.median);
    element("objective-interval").textContent = text(objective, number);
    element("gain").textContent = number(gain.median);
    element("gain-interval").textContent = text(gain, number);
    element("relative").textContent = signed(-gain.median / level);
    const better = this.gains(values, of_uniform).filter((by) => by > 0).length / values.length;
    const [low, high] = gain.interval ?? [];
    element("relative-interval").textContent = gain.interval ? `${signed(-high / level)} to ${signed(-low / level)}` : "";
    element("probability").textContent = gain.interval ? share(better) : "";
    const rows = this.law.validation_domains.map((domain, v) => {
      const drawn = summary([...Array(this.law.count - 1).keys()].map((d) => losses[(d + 1) * this.law.V + v]));
      const cells = [domain, number(losses[v]), this.law.count > 1 ? text(drawn, number) : "", Math.exp(losses[v]).toFixed(2)];
      return make("tr", {}, ...cells.map((cell, c) => make("td", { textContent: cell, className: c === 2 ? "interval" : "" })));
    });
    element("losses").replaceChildren(...rows);
  }

  // Shares of which two are given. The others keep their present proportions; they are equal if all are 0.
  on_plane(i, j, x, y) {
    const others = this.shares.reduce((sum, s, k) => sum + (k === i || k === j ? 0 : s), 0);
    const left = Math.max(1 - x - y, 0), count = this.shares.length - 2;
    return this.shares.map((s, k) => (k === i ? x : k === j ? y : others > 0 ? (s / others) * left : left / count));
  }

  draw() {
    if (this.shares.length === 2) return this.draw_line();
    const [i, j] = [Number(element("x-axis").value), Number(element("y-axis").value)];
    element("map-note").textContent = i === j ? "Choose two different domains." : "";
    if (i === j) return;
    const of_uniform = this.expected(this.uniform).values, level = summary(of_uniform).median;
    const ticks = [...Array(STEPS + 1).keys()].map((t) => t / STEPS);
    const shown = element("shown").value;
    const gain = [], low = [], width = [];
    for (const y of ticks) {
      const row = ticks.map((x) => {
        if (x + y > 1 + 1e-9) return null;
        return summary(this.gains(this.expected(this.on_plane(i, j, x, y)).values, of_uniform));
      });
      gain.push(row.map((at) => at && (100 * at.median) / level));
      low.push(row.map((at) => at && at.interval && (100 * at.interval[0]) / level));
      width.push(row.map((at) => at && at.interval && (100 * (at.interval[1] - at.interval[0])) / 2 / level));
    }
    const z = shown === "gain" ? gain : width;
    const known = z.flat().filter((value) => value !== null);
    // White means no gain, wherever the scale ends. That of the uncertainty, which is 0 at uniform, has its median in the middle.
    const best = Math.max(...known, 0.1), [least, most] = shown === "gain" ? [-3 * best, best] : [0, 2 * summary(known).median];
    const middle = -least / (most - least);
    const two_sided = [[0, "#b35806"], [middle / 2, "#f1a340"], [middle, "#f7f7f7"], [(1 + middle) / 2, "#998ec3"], [1, "#542788"]];
    const surface = {
      type: "contour", x: ticks, y: ticks, z, connectgaps: false, ncontours: 16, hoverongaps: false,
      contours: { coloring: "heatmap" },
      colorscale: shown === "gain" ? two_sided : "Cividis", zmin: least, zmax: most, line: { width: 0.5 },
      colorbar: { orientation: "h", y: -0.22, yanchor: "top", thickness: 12, ticksuffix: " %", title: { text: shown === "gain" ? "gain over uniform" : "± of its 90 % interval", side: "bottom" } },
      hovertemplate: `${this.law.domains[i]} %{x:.0%}, ${this.law.domains[j]} %{y:.0%}: %{z:.2f} %<extra></extra>`,
    };
    const sure = {
      type: "contour", x: ticks, y: ticks, z: low, connectgaps: false, showscale: false, hoverinfo: "skip",
      contours: { type: "constraint", operation: ">", value: 0, coloring: "none" }, fillcolor: "rgba(0,0,0,0)", line: { color: "#1b1b1b", width: 2 },
      name: "surely better inside", showlegend: true,
    };
    const points = this.points((weights) => [weights[i], weights[j]], "%{text}: %{x:.1%}, %{y:.1%}<extra></extra>");
    this.plot([surface, ...(low.flat().some((value) => value > 0) ? [sure] : []), ...points], {
      xaxis: { title: { text: this.law.domains[i] }, tickformat: ".0%", range: [-0.02, 1.02], constrain: "domain" },
      yaxis: { title: { text: this.law.domains[j] }, tickformat: ".0%", range: [-0.02, 1.02], scaleanchor: "x", constrain: "domain" },
    });
  }

  // The gain at each share of the first of two domains, in the place of the map.
  draw_line() {
    const of_uniform = this.expected(this.uniform).values, level = summary(of_uniform).median;
    const percent = (value) => (100 * value) / level;
    const at = (shares) => summary(this.gains(this.expected(shares).values, of_uniform));
    const ticks = [...Array(STEPS + 1).keys()].map((t) => t / STEPS), gains = ticks.map((x) => at([x, 1 - x]));
    const line = (values, style) => ({ type: "scatter", mode: "lines", x: ticks, y: values.map(percent), hoverinfo: "skip", ...style });
    const [lows, highs] = [0, 1].map((end) => gains.map((gain) => (gain.interval ?? [gain.median, gain.median])[end]));
    const inner = (values) => values.slice(STEPS / 14, -STEPS / 14).map(percent); // a domain alone is far below all others
    const traces = [line(gains.map((gain) => gain.median), { name: "gain over uniform", line: { color: "#1b1b1b", width: 2 } })];
    if (gains[0].interval) {
      const band = { name: "90 % interval", fill: "tonexty", fillcolor: "rgba(0,114,178,.2)", line: { width: 0 } };
      traces.unshift(line(lows, { showlegend: false, line: { width: 0 } }), line(highs, band));
    }
    const least = Math.min(...inner(lows)), most = Math.max(...inner(highs), 0.1);
    const points = this.points((weights) => [weights[0], percent(at(weights).median)], "%{text}: %{x:.1%}, %{y:.2f} %<extra></extra>");
    this.plot([...traces, ...points], {
      xaxis: { title: { text: `share of ${this.law.domains[0]}` }, tickformat: ".0%", range: [-0.02, 1.02] },
      yaxis: { title: { text: "gain over uniform", standoff: 8 }, ticksuffix: " %", range: [least, most + (most - least) / 20], automargin: true },
    });
  }

  plot(traces, axes) {
    const layout = {
      margin: { l: 52, r: 8, t: 8, b: 100 }, hovermode: "closest", legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      ...axes, font: { family: "system-ui, sans-serif", size: 12 },
    };
    Plotly.react("map", traces, layout, { displayModeBar: false, responsive: true });
  }

  // The marks by kind, then this mixture; `place` finds x and y of weights.
  points(place, hovertemplate) {
    const kinds = ["uniform", "optimum", "unconstrained", "rival"].map((kind) => [kind, this.marks.filter((mark) => mark.kind === kind)]);
    return [...kinds, ["yours", [{ name: "this mixture", weights: this.shares }]]].map(([kind, marks]) => ({
      type: "scatter", mode: "markers", name: { yours: "this mixture", unconstrained: "without bounds", rival: "other mixtures" }[kind] ?? kind, showlegend: marks.length > 0,
      x: marks.map((mark) => place(mark.weights)[0]), y: marks.map((mark) => place(mark.weights)[1]), text: marks.map((mark) => mark.name),
      marker: { color: COLOURS[kind], symbol: SYMBOLS[kind], size: kind === "yours" ? 17 : 11, line: { color: kind === "yours" ? COLOURS.yours : "#ffffff", width: kind === "yours" ? 3 : 1 } },
      hovertemplate,
    }));
  }
}

async function start() {
  const content = JSON.parse(element("content").textContent);
  const numbers = new Float64Array(await unpacked("arrays").arrayBuffer());
  const arrays = {};
  let from = 0;
  for (const [name, shape] of Object.entries(content.shapes)) {
    const size = shape.reduce((product, n) => product * n, 1);
    arrays[name] = numbers.subarray(from, from + size);
    from += size;
  }
  document.head.append(make("script", { textContent: await unpacked("plotly").text() }));
  window.explorer = new Page(content, new Law(content.law, arrays, content.shapes));
  document.body.dataset.ready = "yes";
}
start();
