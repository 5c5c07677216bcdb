// A library that is loaded many times over.
int plugin_table[6000] = {[0] = 40, [1023] = 1, [2048] = 1};
static const int more[5000] = {[4999] = 100};

int plugin_sum(int index) {
    plugin_table[index % 6000] += 1;
    int sum = 0;
    for (int i = 0; i < 6000; i++) sum += plugin_table[i];
    return sum > 0 ? 42 + more[4999] : 0;
}
