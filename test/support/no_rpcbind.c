/* Preloaded into nfs-ganesha by tests and the demo: its registration with rpcbind, without which it
 * serves no NFSv3, succeeds and does nothing. So no rpcbind need run, and any number of Ganeshas can. */
int rpcb_set(unsigned program, unsigned version, const void* netconfig, const void* address);
int rpcb_unset(unsigned program, unsigned version, const void* netconfig);

int rpcb_set(unsigned program, unsigned version, const void* netconfig, const void* address) {
  (void)program;
  (void)version;
  (void)netconfig;
  (void)address;
  return 1;
}

int rpcb_unset(unsigned program, unsigned version, const void* netconfig) {
  (void)program;
  (void)version;
  (void)netconfig;
  return 1;
}
