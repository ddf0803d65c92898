// The timing table as torch.utils.benchmark.Compare lays it out, byte for byte: engineers paste and
// diff these tables, so every quirk counts (float32 logarithms, Python's centring, trailing
// spaces). Golden cases: tests/golden/.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <tuple>

#include "moebench/core/error.h"
#include "moebench/report/table.h"

namespace moebench {
namespace {

// Constants of torch.utils.benchmark 1.13.
constexpr int kMaxSignificantFigures = 4;
constexpr double kMinConfidenceIntervalS = 25e-9;
constexpr double kNormalQuantile = 1.645;
constexpr double kHighVariance = 0.10;  // IQR / median from which a cell is marked
constexpr int kMarkWidth = 7;  // " (! 27%)" without the space that the cell's width already has
constexpr const char* kBest = "\033[92m\033[1m";
constexpr const char* kGood = "\033[34m\033[1m";
constexpr const char* kVeryBad = "\033[31m\033[1m";
constexpr const char* kBad = "\033[2m\033[91m";
constexpr const char* kTerminate = "\033[0m\033[0m";

/// Merged replicates of one task.
struct Cell {
  std::string row_name;
  std::string description;
  std::optional<std::string> env;
  int num_threads = 1;
  std::vector<double> sorted_s;
  double median = 0.0;
  double iqr = 0.0;

  [[nodiscard]] bool high_variance() const { return iqr / median >= kHighVariance; }
};

/// torch.Tensor.quantile on float64: linear interpolation, in lerp's two-sided form.
double quantile_of(const std::vector<double>& sorted, double q) {
  const double rank = q * static_cast<double>(sorted.size() - 1);
  const double below = std::floor(rank);
  const double weight = rank - below;
  const double low = sorted[static_cast<std::size_t>(below)];
  const double high = sorted[static_cast<std::size_t>(std::ceil(rank))];
  return weight < 0.5 ? low + weight * (high - low) : high - (high - low) * (1.0 - weight);
}

/// Decimal exponents come from float32 logarithms there, correctly rounded: 100000.055 has 5 digits
/// although its logarithm is above 5. log10f of glibc is off by a unit often enough to show.
double log10_f32(double value) {
  const auto rounded = static_cast<double>(static_cast<float>(value));
  return static_cast<double>(static_cast<float>(std::log10(rounded)));
}

/// `exponent` as an int. A median of zero (a clock that stood still) has none, and what Compare
/// refuses to print still needs some width here.
int as_int(double exponent) { return std::isfinite(exponent) ? static_cast<int>(exponent) : 0; }

/// torch's float32 sum, in its order of additions on AVX2: shorter than a vector as four
/// interleaved scalar sums, else as four interleaved vector sums, then the tail, then the lanes.
/// Exact up to 512 values; above, torch adds in blocks and this may differ in the last bit.
float sum_f32(std::span<const float> values) {
  constexpr std::size_t kLanes = 8;
  constexpr std::size_t kInterleaved = 4;
  const std::size_t lanes = values.size() < kLanes ? 1 : kLanes;
  const std::size_t vectors = values.size() / lanes;
  const std::size_t interleaved = vectors / kInterleaved * kInterleaved;
  float partial[kInterleaved][kLanes] = {};
  for (std::size_t i = 0; i < vectors * lanes; ++i) {
    const std::size_t vector = i / lanes;
    partial[vector < interleaved ? vector % kInterleaved : 0][i % lanes] += values[i];
  }
  float sum = 0.0F;
  for (std::size_t i = vectors * lanes; i < values.size(); ++i) sum += values[i];
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    for (std::size_t k = 1; k < kInterleaved; ++k) partial[0][lane] += partial[k][lane];
    sum += partial[0][lane];
  }
  return sum;
}

/// From the spread between the quartiles, as torch estimates it: a float32 tensor with a float32
/// mean, its squared deviations in double.
int significant_figures(const Cell& cell) {
  const std::size_t n = cell.sorted_s.size();
  std::vector<float> central;
  for (std::size_t i = n / 4; i < (3 * n + 3) / 4; ++i) {
    central.push_back(static_cast<float>(cell.sorted_s[i]));
  }
  const auto count = static_cast<float>(central.size());
  const float mean = sum_f32(central) / count;
  double squares = 0.0;
  for (const float value : central) {
    const double deviation = static_cast<double>(value) - static_cast<double>(mean);
    squares += deviation * deviation;
  }
  const auto std_dev =
      static_cast<double>(static_cast<float>(std::sqrt(squares / static_cast<double>(count))));
  const auto sqrt_n = static_cast<double>(std::sqrt(count));
  const double interval = std::max(kNormalQuantile * std_dev / sqrt_n, kMinConfidenceIntervalS);
  const int figures = as_int(std::floor(log10_f32(cell.median / interval)));
  return std::clamp(figures, 1, kMaxSignificantFigures);
}

/// `value` to `figures` significant figures, in float32 steps as torch does it.
double trim_to_figures(double value, int figures) {
  const int magnitude = as_int(std::ceil(log10_f32(std::fabs(value))));
  const double scale = std::pow(10.0, magnitude - figures);
  const float steps = std::nearbyint(static_cast<float>(value / scale));
  return static_cast<double>(steps * static_cast<float>(scale));
}

/// Characters, not bytes: widths are Python's.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string pad_right(std::string text, std::size_t width, char fill = ' ') {
  const std::size_t have = width_of(text);
  if (have < width) text.append(width - have, fill);
  return text;
}

/// str.center: of an odd padding, the extra character goes left if the width is odd.
std::string center(const std::string& text, std::size_t width, char fill = ' ') {
  const std::size_t have = width_of(text);
  if (have >= width) return text;
  const std::size_t pad = width - have;
  const std::size_t left = pad / 2 + (pad & width & 1);
  return std::string(left, fill) + text + std::string(pad - left, fill);
}

struct Unit {
  const char* symbol;
  const char* english;
  double seconds;
};

Unit unit_for(double smallest_s) {
  switch (as_int(std::floor(log10_f32(smallest_s) / 3.0))) {
    case -3:
      return {"ns", "nanosecond", 1e-9};
    case -2:
      return {"us", "microsecond", 1e-6};
    case -1:
      return {"ms", "millisecond", 1e-3};
    default:
      return {"s", "second", 1.0};
  }
}

using RowKey = std::tuple<int, std::string, std::string>;  // threads, env, row name

/// How the cells of one column are printed.
class ColumnFormat {
 public:
  ColumnFormat(const std::vector<const Cell*>& cells, double scale, const TableStyle& style)
      : scale_(scale), trim_(style.trim_significant_figures) {
    int unit_digits = 0;
    int decimals = 0;
    bool first = true;
    for (const Cell* cell : cells) {
      if (cell == nullptr) continue;
      const int digits = as_int(std::ceil(log10_f32(cell->median / scale)));
      const int wanted = trim_ ? std::max(significant_figures(*cell) - digits, 0) : 1;
      unit_digits = first ? digits : std::max(unit_digits, digits);
      decimals = first ? wanted : std::min(decimals, wanted);
      mark_ = mark_ || (style.highlight_warnings && cell->high_variance());
      first = false;
    }
    decimals_ = decimals;
    // Python reads a negative width ("{:>-3.1f}") as the sign option "-" and the width 3.
    width_ = std::abs(unit_digits + decimals + (decimals > 0 ? 1 : 0));
  }

  [[nodiscard]] std::string print(const Cell* cell) const {
    if (cell == nullptr) return std::string(number(1.0, 1, "").size(), ' ');
    std::string mark;
    if (mark_ && cell->high_variance())
      mark = fmt::format(" (! {:.0f}%)", cell->iqr / cell->median * 100);
    return number(cell->median / scale_, trim_ ? significant_figures(*cell) : 1, mark);
  }

 private:
  [[nodiscard]] std::string number(double value, int figures, const std::string& mark) const {
    if (trim_) value = trim_to_figures(value, figures);
    return fmt::format("{:>{}.{}f}{:>{}}", value, width_, decimals_, mark, mark_ ? kMarkWidth : 0);
  }

  double scale_;
  bool trim_;
  bool mark_ = false;
  int decimals_ = 1;
  int width_ = 0;
};

std::string colored(const std::string& text, double value, double best) {
  if (value <= best * 1.01 || value <= best + 100e-9) return kBest + text + kTerminate;
  if (value <= best * 1.1) return kGood + text + kTerminate;
  if (value >= best * 5) return kVeryBad + text + kTerminate;
  if (value >= best * 2) return kBad + text + kTerminate;
  return text;
}

/// One label's table.
class Layout {
 public:
  Layout(std::string label, std::vector<Cell> cells, const TableStyle& style)
      : label_(std::move(label)), cells_(std::move(cells)), style_(style) {
    place_cells();
  }

  [[nodiscard]] std::string render() const;

 private:
  void place_cells();
  [[nodiscard]] std::vector<std::vector<std::string>> print_cells(double scale) const;
  [[nodiscard]] std::string finished_row(std::size_t row, const std::vector<std::string>& printed,
                                         const std::vector<std::size_t>& widths) const;
  [[nodiscard]] double best_of(std::size_t row, std::size_t column) const;

  std::string label_;
  std::vector<Cell> cells_;
  TableStyle style_;
  std::vector<std::string> columns_;
  std::vector<RowKey> rows_;
  std::vector<std::vector<const Cell*>> grid_;  // [row][column]
};

RowKey row_key(const Cell& cell) {
  return {cell.num_threads, cell.env.value_or(""), cell.row_name};
}

void Layout::place_cells() {
  std::map<std::string, std::size_t> column_of;
  for (const Cell& cell : cells_) {
    if (column_of.emplace(cell.description, columns_.size()).second)
      columns_.push_back(cell.description);
    rows_.push_back(row_key(cell));
  }
  // Distinct rows in order of appearance, then sorted by threads and env only.
  std::map<RowKey, std::size_t> row_of;
  std::vector<RowKey> distinct;
  for (const RowKey& key : rows_) {
    if (row_of.emplace(key, 0).second) distinct.push_back(key);
  }
  std::stable_sort(distinct.begin(), distinct.end(), [](const RowKey& a, const RowKey& b) {
    return std::tie(std::get<0>(a), std::get<1>(a)) < std::tie(std::get<0>(b), std::get<1>(b));
  });
  rows_ = std::move(distinct);
  for (std::size_t i = 0; i < rows_.size(); ++i) row_of[rows_[i]] = i;
  grid_.assign(rows_.size(), std::vector<const Cell*>(columns_.size(), nullptr));
  for (const Cell& cell : cells_) grid_[row_of[row_key(cell)]][column_of[cell.description]] = &cell;
}

std::vector<std::vector<std::string>> Layout::print_cells(double scale) const {
  std::vector<ColumnFormat> formats;
  for (std::size_t column = 0; column < columns_.size(); ++column) {
    std::vector<const Cell*> cells;
    for (const auto& row : grid_) cells.push_back(row[column]);
    formats.emplace_back(cells, scale, style_);
  }
  std::size_t longest_env = 0;
  bool several_envs = false;
  for (const RowKey& key : rows_) {
    longest_env = std::max(longest_env, width_of(std::get<1>(key)));
    several_envs = several_envs || std::get<1>(key) != std::get<1>(rows_.front());
  }
  if (!several_envs) longest_env = 0;

  constexpr std::size_t kBrackets = 4;  // "(", ")" and two spaces
  std::vector<std::vector<std::string>> printed;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    const auto& [threads, env, name] = rows_[row];
    // The environment is shown where it changes, and again under each thread count's line.
    const bool new_threads = row == 0 || std::get<0>(rows_[row - 1]) != threads;
    const std::string prior = new_threads ? "" : std::get<1>(rows_[row - 1]);
    const std::string shown = several_envs && env != prior ? "(" + env + ")" : "";
    std::vector<std::string> cells{"  " + pad_right(shown, longest_env + kBrackets) + name};
    for (std::size_t column = 0; column < columns_.size(); ++column) {
      cells.push_back(formats[column].print(grid_[row][column]));
    }
    printed.push_back(std::move(cells));
  }
  return printed;
}

/// The smallest time that `row`'s cell in `column` is coloured against.
double Layout::best_of(std::size_t row, std::size_t column) const {
  double best = INFINITY;
  if (style_.color == TableStyle::Color::kRowwise) {
    for (const Cell* cell : grid_[row]) {
      if (cell != nullptr) best = std::min(best, cell->median);
    }
    return best;
  }
  for (std::size_t other = 0; other < rows_.size(); ++other) {
    const Cell* cell = grid_[other][column];
    const bool same_group = std::get<0>(rows_[other]) == std::get<0>(rows_[row]);
    if (cell != nullptr && same_group) best = std::min(best, cell->median);
  }
  return best;
}

std::string Layout::finished_row(std::size_t row, const std::vector<std::string>& printed,
                                 const std::vector<std::size_t>& widths) const {
  std::string line = pad_right(printed[0], widths[0]);
  for (std::size_t column = 0; column < columns_.size(); ++column) {
    std::string text = center(printed[column + 1], widths[column + 1]);
    const Cell* cell = grid_[row][column];
    if (style_.color != TableStyle::Color::kNone && cell != nullptr) {
      text = colored(text, cell->median, best_of(row, column));
    }
    line += "  |  " + text;
  }
  return line;
}

std::string Layout::render() const {
  double smallest = INFINITY;
  bool high_variance = false;
  for (const Cell& cell : cells_) {
    smallest = std::min(smallest, cell.median);
    high_variance = high_variance || cell.high_variance();
  }
  const Unit unit = unit_for(smallest);
  const auto printed = print_cells(unit.seconds);

  std::vector<std::size_t> widths{0};
  for (const std::string& column : columns_) widths.push_back(width_of(column));
  for (const auto& row : printed) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string header = center("", widths[0]);
  for (std::size_t i = 0; i < columns_.size(); ++i)
    header += "  |  " + center(columns_[i], widths[i + 1]);
  const std::size_t overall = width_of(header);

  std::string out =
      fmt::format("[{}]\n{}\n", center(fmt::format(" {} ", label_), overall - 2, '-'), header);
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    const int threads = std::get<0>(rows_[row]);
    if (row == 0 || std::get<0>(rows_[row - 1]) != threads) {
      out += pad_right(fmt::format("{} threads: ", threads), overall, '-') + "\n";
    }
    out += finished_row(row, printed[row], widths) + "\n";
  }
  out += fmt::format("\nTimes are in {}s ({}).\n", unit.english, unit.symbol);
  if (style_.highlight_warnings && high_variance) {
    out += "(! XX%) Measurement has high variance, where XX is the IQR / median * 100.\n";
  }
  return out;
}

/// Replicates of one task become one cell; tasks keep the order of their first entry.
std::vector<std::pair<std::string, std::vector<Cell>>> merge_by_label(
    std::span<const TableEntry> entries) {
  std::vector<std::pair<std::string, std::vector<Cell>>> tables;
  std::map<std::string, std::size_t> table_of;
  using TaskKey =
      std::tuple<std::string, std::string, std::string, std::optional<std::string>, int>;
  std::map<TaskKey, std::size_t> cell_of;
  for (const TableEntry& entry : entries) {
    if (entry.raw_times.empty()) continue;
    const std::size_t table = table_of.emplace(entry.label, tables.size()).first->second;
    if (table == tables.size()) tables.push_back({entry.label, {}});
    std::vector<Cell>& cells = tables[table].second;
    const TaskKey key{entry.label, entry.sub_label, entry.description, entry.env,
                      entry.num_threads};
    const auto [position, is_new] = cell_of.emplace(key, cells.size());
    if (is_new) {
      cells.push_back({.row_name = entry.sub_label.empty() ? "[Unknown]" : entry.sub_label,
                       .description = entry.description,
                       .env = entry.env,
                       .num_threads = entry.num_threads,
                       .sorted_s = {},
                       .median = 0.0,
                       .iqr = 0.0});
    }
    for (const double raw : entry.raw_times) {
      cells[position->second].sorted_s.push_back(raw / static_cast<double>(entry.number_per_run));
    }
  }
  for (auto& [label, cells] : tables) {
    for (Cell& cell : cells) {
      std::sort(cell.sorted_s.begin(), cell.sorted_s.end());
      cell.median = quantile_of(cell.sorted_s, 0.5);
      cell.iqr = quantile_of(cell.sorted_s, 0.75) - quantile_of(cell.sorted_s, 0.25);
    }
  }
  return tables;
}

}  // namespace

std::string render_compare(std::span<const TableEntry> entries, const TableStyle& style) {
  std::string out;
  for (auto& [label, cells] : merge_by_label(entries)) {
    if (!out.empty()) out += "\n";
    out += Layout(label, std::move(cells), style).render();
  }
  return out;
}

}  // namespace moebench
