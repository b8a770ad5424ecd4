// The default law in JavaScript: formula.py, points.py and model_size.py in laws/pooled, repetition.py and discrepancy.py in laws.
// D draws, V validation domains, K training domains, P parameters, R runs, F features. Index 0 is the law itself, 1 to D
// are its draws. Arrays are flat, in C's order.

class Law {
  constructor(numbers, arrays, shapes) {
    Object.assign(this, numbers, arrays);
    [this.count, this.V, this.P] = shapes.theta; // 1 + D laws
    this.K = this.domains.length;
    this.R = shapes.run_points[0];
    this.F = shapes.features[2];
    const points = [...Array(this.R).keys()].map((r) => this.run_points.subarray(r * (2 * this.K + 2), (r + 1) * (2 * this.K + 2)));
    this.runs = points;
    this.mean_log_budget = points.reduce((sum, point) => sum + point[2 * this.K], 0) / this.R;
    this.seen = [2 * this.K, 2 * this.K + 1].map((c) => [Math.min(...points.map((p) => p[c])), Math.max(...points.map((p) => p[c]))]);
  }

  // (1 + D) x V losses in nats per token of K domain tokens, for models with `params` parameters (null: unknown).
  losses(tokens, params) {
    const losses = this.formula(tokens, params);
    this.correct(losses, tokens, params);
    return losses.map((loss) => Math.min(loss, this.ceiling));
  }

  formula(tokens, params) {
    const { K, V, P, columns, size } = this;
    const log_tokens = tokens.map((n) => Math.log(n / this.reference_tokens));
    const log_total = Math.log(Math.max(log_tokens.reduce((sum, x) => sum + Math.exp(x), 0), Math.exp(this.log_no_text)));
    const log_size = size === null ? 0 : Math.log(params / this.reference_params);
    const { epochs, all_epochs, excess, fresh_excess } = this.repeated(tokens, params);
    const losses = new Float64Array(this.count * V);
    const parts = new Float64Array(K), seen = new Float64Array(K);
    for (let i = 0; i < losses.length; i++) {
      const own = this.own[i % V];
      const at = (name) => this.theta[i * P + columns[name]];
      const decay = Math.exp(at("REPETITION"));
      for (let k = 0; k < K; k++) seen[k] = log_tokens[k] + log_worth(epochs[k], decay);
      const total = log_total + log_worth(all_epochs, decay);
      const rho = sigmoid(at("OWN_EXPONENT"));
      const sigma = sigmoid(at("OWN_EXPONENT") + at("OTHER_EXPONENT"));
      const leading = own >= 0 ? rho : sigma;
      const power = Math.exp(at("SPECIFIC_DECAY")) / leading;
      const part = sigmoid(at("BUDGET_PART"));
      const log_data = (log_x) => {
        for (let k = 0; k < K; k++) {
          parts[k] = (k === own ? rho : sigma) * log_x(k) + (part - 1) * leading * total + this.theta[i * P + this.specific + k];
        }
        return log_sum(parts, at("SPECIFIC_OFFSET"));
      };
      const even = log_data(() => total - Math.log(K));
      const responded = even + Math.exp(at("RESPONSE_GROWTH") * total) * (log_data((k) => seen[k]) - even);
      const alpha = Math.exp(at("GENERIC_DECAY"));
      for (let k = 0; k < K; k++) parts[k] = this.theta[i * P + this.generic + k] / alpha + seen[k];
      const log_generic = log_sum(parts, this.log_no_text) + this.log_generic_unit;
      let mixture = Math.exp(at("SPECIFIC_AMPLITUDE") - power * responded);
      mixture += Math.exp(at("GENERIC_AMPLITUDE") - alpha * log_generic);
      losses[i] = Math.exp(at("IRREDUCIBLE"));
      if (size !== null) {
        const of_size = (name) => this.theta[i * P + size[name]];
        const decay_of_excess = Math.exp(of_size("EXCESS"));
        const log_effective = log_size + log_worth(excess, decay_of_excess) - log_worth(fresh_excess, decay_of_excess);
        mixture *= Math.exp(-of_size("EASE") * log_effective);
        losses[i] += Math.exp(of_size("AMPLITUDE") - Math.exp(of_size("DECAY")) * log_effective);
      }
      losses[i] += mixture;
    }
    return losses;
  }

  // The epochs over the text, and the size of models relative to it.
  repeated(tokens, params) {
    const total = tokens.reduce((sum, n) => sum + n, 0);
    const text = this.unique_tokens ?? tokens.map(() => Infinity);
    const all_text = text.reduce((sum, n) => sum + n, 0);
    const excess_of = (n) => (params === null ? 0 : (params * this.tokens_per_parameter) / n);
    return {
      epochs: tokens.map((n, k) => n / Math.max(text[k], 1)),
      all_epochs: total / Math.max(all_text, 1),
      excess: excess_of(Math.min(total, all_text)),
      fresh_excess: excess_of(total),
    };
  }

  // Adds each law's correction: the kernel to the runs, the features of a draw's path, and its error of level.
  correct(losses, tokens, params) {
    const { V, R, F } = this;
    const point = this.coordinates(tokens, params);
    const beyond = this.beyond(point);
    const kernel = this.runs.map((run) => this.kernel_between(point, run));
    const features = this.features_at(point, this.growth * beyond);
    const relative = Math.exp(this.exponent * (point[2 * this.K] - this.mean_log_budget));
    for (let i = 0; i < losses.length; i++) {
      let sum = 0;
      for (let r = 0; r < R; r++) sum += kernel[r] * this.at_runs[i * R + r];
      const drawn = i - V; // the law itself has its expected correction, which has no path
      if (drawn >= 0) for (let f = 0; f < F; f++) sum += features[f] * this.features[drawn * F + f];
      losses[i] += relative * this.sd[i % V] * sum + (drawn >= 0 ? beyond * this.level[drawn] : 0);
    }
  }

  // 2 K + 2 coordinates, discounted for repetition: roots of shares, logs of shares, log budget, log size.
  coordinates(tokens, params) {
    const { epochs, excess, fresh_excess } = this.repeated(tokens, params);
    const worth = tokens.map((n, k) => n * Math.exp(log_worth(epochs[k], this.data_decay)));
    const total = Math.max(worth.reduce((sum, n) => sum + n, 0), 1);
    const shares = worth.map((n) => n / total);
    const lost = log_worth(excess, this.excess_decay) - log_worth(fresh_excess, this.excess_decay);
    const log_size = params === null ? 0 : Math.log(params / this.most_params) + lost;
    return [...shares.map(Math.sqrt), ...shares.map((s) => Math.log(s + this.kernel.least_share)), Math.log(total), log_size];
  }

  kernel_between(a, b) {
    const { K, kernel } = this;
    let squares = 0, by_share = 0;
    for (let k = 0; k < K; k++) {
      squares += (a[k] - b[k]) ** 2;
      by_share += Math.exp(-((a[K + k] - b[K + k]) ** 2) / (2 * kernel.log_length ** 2));
    }
    const apart = (a[2 * K] - b[2 * K]) ** 2 + (a[2 * K + 1] - b[2 * K + 1]) ** 2;
    const smooth = (Math.exp(-squares / (2 * kernel.length ** 2)) + by_share / K) / 2;
    const rough = Math.exp(-squares / (2 * kernel.rough_length ** 2) - apart / (2 * kernel.rough_scale ** 2));
    return kernel.rough * rough + (1 - kernel.rough) * smooth * Math.exp(-apart / (2 * kernel.scale ** 2));
  }

  // The smooth features follow once more, times `growth`.
  features_at(point, growth) {
    const features = new Float64Array(this.F), count = this.phases.length;
    for (let f = 0; f < count; f++) {
      let angle = this.phases[f];
      for (let c = 0; c < point.length; c++) angle += this.frequencies[f * point.length + c] * point[c];
      features[f] = Math.sqrt(2 / count) * Math.cos(angle);
      if (f >= this.num_rough) features[count + f - this.num_rough] = growth * features[f];
    }
    return features;
  }

  // The distance of log budget and log size from the range of the runs.
  beyond(point) {
    const over = this.seen.map(([least, most], i) => {
      const at = point[2 * this.K + i];
      return Math.max(at - most, 0) + Math.max(least - at, 0);
    });
    return Math.hypot(...over);
  }
}

class Objective {
  constructor({ metric, aggregate, weights }) {
    Object.assign(this, { metric, aggregate, weights });
  }

  // (D) values under the draws; without draws, the law's own.
  values(law, losses) {
    const first = law.count > 1 ? 1 : 0;
    return [...Array(law.count - first).keys()].map((d) => {
      const of_law = losses.subarray((first + d) * law.V, (first + d + 1) * law.V);
      const values = this.metric === "loss" ? [...of_law] : [...of_law].map(Math.exp);
      return this.aggregate === "mean" ? values.reduce((sum, x, v) => sum + x * this.weights[v], 0) : Math.max(...values);
    });
  }
}

// The log of the mean worth of a use of text, over so many uses, where the first is worth 1.
function log_worth(times, decay) {
  const again = Math.max(times, 1) - 1;
  return Math.log((1 - decay * Math.expm1(-again / decay)) / (1 + again));
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

function log_sum(parts, offset) {
  let top = offset;
  for (const part of parts) top = Math.max(top, part);
  let sum = Math.exp(offset - top);
  for (const part of parts) sum += Math.exp(part - top);
  return top + Math.log(sum);
}

// A quantile as numpy has it: linear between the two nearest values.
function quantile(sorted, at) {
  const place = at * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

// The median over draws and the 90 % interval; without draws, the interval is null.
function summary(values) {
  if (values.length < 2) return { median: values[0], interval: null };
  const sorted = [...values].sort((a, b) => a - b);
  return { median: quantile(sorted, 0.5), interval: [quantile(sorted, 0.05), quantile(sorted, 0.95)] };
}

// Shares after one of them is moved. Locked ones stay; the others keep their proportions and fill the rest.
function rebalanced(shares, locked, moved, wanted) {
  const free = shares.map((_, k) => k !== moved && !locked[k]);
  if (!free.includes(true)) return [...shares];
  const held = shares.reduce((sum, s, k) => sum + (k !== moved && locked[k] ? s : 0), 0);
  const own = Math.min(Math.max(wanted, 0), Math.max(1 - held, 0));
  const left = Math.max(1 - held - own, 0);
  const now = shares.reduce((sum, s, k) => sum + (free[k] ? s : 0), 0);
  const count = free.filter(Boolean).length;
  return shares.map((s, k) => (k === moved ? own : !free[k] ? s : now > 0 ? (s / now) * left : left / count));
}
