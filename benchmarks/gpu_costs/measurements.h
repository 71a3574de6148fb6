// The measurements; each prints a JSON object per line: what was measured, its setting, and "ns" or "bytes_per_second".
#pragma once

void measure_node_gap();
void measure_grid_barrier();
void measure_flag_handover();
void measure_cluster();
void measure_reading();
void measure_products();
