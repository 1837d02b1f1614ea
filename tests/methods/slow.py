"""The methods again, in plain loops and from the equations, for comparison."""

import math


def normalised(logs):
    top = max(logs)
    total = math.log(sum(math.exp(x - top) for x in logs)) + top
    return [x - total for x in logs]


def layers_of(layers, depth):
    if layers == "all":
        return list(range(depth))
    if layers == "upper":
        first = 21 if depth >= 24 else math.ceil(7 * depth / 12)
        return [layer for layer in range(depth) if min(first, depth - 1) <= layer <= 35]
    return list(range(layers[0], layers[1] + 1))


def strongest(attention, layers, top_k):
    ranked = sorted(layers_of(layers, len(attention)), key=lambda layer: sum(attention[layer]), reverse=True)
    return ranked[:top_k]


def attention_prior(passes):
    depth, N = len(passes[0]), len(passes[0][0])
    return [[sum(a[layer][k] for a in passes) / len(passes) for k in range(N)] for layer in range(depth)]


def posterior(attention, prior, chosen, mean, temperature):
    logs = []
    for k in range(len(attention[0])):
        if mean == "log":
            value = sum(math.log(attention[layer][k]) - math.log(prior[layer][k]) for layer in chosen) / len(chosen)
        else:
            value = math.log(sum(attention[layer][k] for layer in chosen) / len(chosen))
            value -= sum(math.log(prior[layer][k]) for layer in chosen) / len(chosen)
        logs.append(temperature * value)
    return [math.exp(x) for x in normalised(logs)]


def position_bias(log_probs, gold, mean):
    N = len(log_probs[0])
    observed = []
    for i in range(N):
        rows = [normalised(p) for p, g in zip(log_probs, gold, strict=True) if g == i]
        if mean == "log":
            observed.append([sum(r[j] for r in rows) / len(rows) for j in range(N)])
        else:
            observed.append([math.log(sum(math.exp(r[j]) for r in rows) / len(rows)) for j in range(N)])
    log_gain = max(observed[i][i] - observed[i][j] for i in range(N) for j in range(N) if i != j)
    log_gain = max(log_gain, 0.0)
    return [[observed[i][j] - (log_gain if i == j else 0.0) for j in range(N)] for i in range(N)]


def lad(calibration, evidence, *, top_k, temperature, layers, attention_mean, bias_mean, mixture):
    """Log-probabilities; attention is that of the images' own tokens."""
    prior = attention_prior(calibration.attention.tolist())
    bias = position_bias(calibration.log_probs.tolist(), calibration.gold_position.tolist(), bias_mean)
    answers = []
    for log_probs, attention in zip(evidence.log_probs.tolist(), evidence.attention.tolist(), strict=True):
        pi = posterior(attention, prior, strongest(attention, layers, top_k), attention_mean, temperature)
        N = len(pi)
        if mixture == "log":
            expected = [sum(pi[k] * bias[k][j] for k in range(N)) for j in range(N)]
        else:
            expected = [math.log(sum(pi[k] * math.exp(bias[k][j]) for k in range(N))) for j in range(N)]
        answers.append(normalised([log_probs[j] - expected[j] for j in range(N)]))
    return answers


def pride(calibration, evidence, prior_mean):
    N = calibration.n_candidates
    by_sample = {}
    for sample, log_probs in zip(calibration.sample_id.tolist(), calibration.log_probs.tolist(), strict=True):
        by_sample.setdefault(sample, []).append(normalised(log_probs))
    if prior_mean == "geometric":  # the mean log-probability over all passes
        passes = [row for rows in by_sample.values() for row in rows]
        log_prior = [sum(row[j] for row in passes) / len(passes) for j in range(N)]
    else:
        priors = [normalised([sum(row[j] for row in rows) / N for j in range(N)]) for rows in by_sample.values()]
        log_prior = [math.log(sum(math.exp(p[j]) for p in priors) / len(priors)) for j in range(N)]
    return [normalised([p[j] - log_prior[j] for j in range(N)]) for p in evidence.log_probs.tolist()]


def permutation_average(evidence):
    rows = list(zip(evidence.sample_id.tolist(), map(tuple, evidence.perm.tolist()), evidence.log_probs.tolist(), strict=True))
    answers = []
    for sample, order, _ in rows:
        N = len(order)
        shifts = {tuple(order[(j - s) % N] for j in range(N)) for s in range(N)}
        seen = {p: normalised(log_probs) for other, p, log_probs in rows if other == sample and p in shifts}
        image = [sum(logs[p.index(m)] for p, logs in seen.items()) / len(seen) for m in range(N)]
        answers.append(normalised([image[order[j]] for j in range(N)]))
    return answers
